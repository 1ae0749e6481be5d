"""The error of this folder."""


class ComparisonError(ValueError):
    """Two things that cannot be compared; the message says why, and what to do."""
