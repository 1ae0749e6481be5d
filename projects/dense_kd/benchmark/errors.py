"""The error of this folder."""

from __future__ import annotations

from ..errors import DenseKDError


class BenchmarkError(DenseKDError, ValueError):
    """Something that cannot be measured, or a file of results that is none."""
