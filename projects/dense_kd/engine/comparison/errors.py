"""The error of this folder."""

from ...errors import DenseKDError


class ComparisonError(DenseKDError, ValueError):
    """Two things that cannot be compared; the message says why, and what to do."""
