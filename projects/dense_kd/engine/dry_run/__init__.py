"""A run tried on a few images: what it would do, what it would cost, and what does not fit."""

from .results import DryRun
from .run import dry_run

__all__ = ["DryRun", "dry_run"]
