"""Lists that belong together, item by item."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any


def check_equal_lengths(**lists: Sized) -> None:
    """Raise ValueError, which names them, unless lists of levels or images are equally long."""
    lengths = {name: len(items) for name, items in lists.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"lists of the lengths {lengths}: expected equal ones; they have to be of the same "
            "levels or images"
        )


def zip_equal(**lists: Sized) -> Iterator[tuple[Any, ...]]:
    """``zip`` of lists that have to be equally long (``strict`` needs Python 3.10)."""
    check_equal_lengths(**lists)
    return zip(*lists.values())
