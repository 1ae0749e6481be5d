"""What all errors of this package are that its user can mend."""

from __future__ import annotations


class DenseKDError(Exception):
    """Something that was given cannot work. The message says what was received, what was expected
    and what to do, so that command lines print it without a traceback."""


class MissingExtraError(DenseKDError, ImportError):
    """A package that not everybody needs is not installed. The message names the extra."""
