"""Maps of several levels side by side, so that one operation serves all of them.

P are the places (cells, or predictions) of all levels, in the order of the levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import torch
from torch import Tensor

from ...arguments import is_integer
from ...options import is_list

Levels = Union[Tensor, list[Tensor]]
"""Maps of L levels, or the one of a single level."""


def listed(levels: Levels) -> list[Tensor]:
    """The maps, one for each level."""
    return [levels] if isinstance(levels, Tensor) else levels


def checked_omissions(omitted_levels: Sequence[int]) -> tuple[int, ...]:
    """The option ``omitted_levels`` of a method, numbers of levels, 0 the finest and -1 the
    coarsest; ValueError if it is none."""
    if not is_list(omitted_levels) or not all(map(is_integer, omitted_levels)):
        raise ValueError(f"omitted_levels={omitted_levels!r}: expected numbers of levels")
    return tuple(omitted_levels)


def remaining_levels(count: int, omitted_levels: Sequence[int]) -> list[int]:
    """Of ``count`` levels those that are not omitted.

    Raises:
        ValueError: a level is none of them, or none remains.
    """
    for level in omitted_levels:
        if not -count <= level < count:
            raise ValueError(
                f"omitted_levels={omitted_levels} names level {level}, but the pyramids "
                f"have {count}; expected {-count} to {count - 1}"
            )
    omitted = {level % count for level in omitted_levels}
    remaining = [level for level in range(count) if level not in omitted]
    if not remaining:
        raise ValueError(f"omitted_levels={omitted_levels} leaves no level to compare")
    return remaining


def joined(levels: Levels, dim: int = 1) -> Tensor:
    """(..., P) of L x (..., Hl, Wl), whose map begins at ``dim``; also of what is joined."""
    return torch.cat([level.flatten(dim) for level in listed(levels)], dim=dim)


class Places:
    """Where the P places of L levels are.

    Attributes:
        sizes: L numbers of places.
        on_level: (L, P), 1 where a place is on a level, else 0.
        counts: (L,), ``sizes``.
    """

    def __init__(self, levels: Levels, dim: int = 1):
        """
        Args:
            levels: L x (..., Hl, Wl), whose map begins at ``dim``; numbers have their dtype and
                device.
            dim: see there.
        """
        maps = listed(levels)
        self.sizes = [level[(0,) * dim].numel() for level in maps]
        columns = torch.eye(len(maps), dtype=maps[0].dtype, device=maps[0].device).split(1, dim=1)
        self.on_level = torch.cat([x.expand(-1, n) for x, n in zip(columns, self.sizes)], dim=1)
        self.counts = self.on_level.sum(dim=1)

    def sums(self, values: Tensor) -> Tensor:
        """(..., L) of (..., P): the sum over each level."""
        return values @ self.on_level.T

    def spread(self, values: Tensor) -> Tensor:
        """(..., P) of (..., L): at each place the value of its level."""
        return values @ self.on_level

    def softmax(self, values: Tensor) -> Tensor:
        """(..., P) of (..., P): the softmax over the places of each level."""
        return torch.cat([x.softmax(dim=-1) for x in values.split(self.sizes, dim=-1)], dim=-1)
