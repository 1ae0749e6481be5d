"""What is wrong with a study."""

from __future__ import annotations

from ..errors import DenseKDError


class StudyError(DenseKDError, ValueError):
    """A study's file, a cell's file or a folder of results cannot be used; the message says why."""
