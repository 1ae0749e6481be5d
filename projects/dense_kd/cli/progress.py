"""How far a command is with its images."""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ["image_counter"]


def image_counter() -> Callable[[int, int], None] | None:
    """What shows (done, total) in one line of stderr; None where that is no terminal."""
    return _show if sys.stderr.isatty() else None


def _show(done: int, total: int) -> None:
    print(f"\r{done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
