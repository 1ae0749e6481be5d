"""The error of this folder."""

from __future__ import annotations

from ...errors import DenseKDError


class RankError(DenseKDError, RuntimeError):
    """A process of a run has failed or is gone; the message says which, and why."""
