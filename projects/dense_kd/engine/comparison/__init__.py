"""The first losses of two commits, or of two configs, side by side."""

from .comparing import compare
from .errors import ComparisonError
from .pairs import DEFAULT_CONFIGS

__all__ = ["DEFAULT_CONFIGS", "ComparisonError", "compare"]
