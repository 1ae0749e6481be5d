"""Maps of an image or a batch as they are kept: the bytes of all one behind the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGNED = 16  # bytes, a multiple of the size of any number


@dataclass(frozen=True)
class Map:
    """One map of an entry.

    Attributes:
        name: what it is a level of.
        shape: (C, Hl, Wl), or (N, C, Hl, Wl) of a batch.
        dtype: of the teacher's pass.
        kept: the dtype that it is kept in.
        begin: of its bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    kept: torch.dtype
    begin: int


@dataclass(frozen=True)
class Entry:
    """The maps of an image or a batch.

    Attributes:
        maps: in the order of their levels, those of one name together.
        content: (B,) uint8, on the CPU.
    """

    maps: tuple[Map, ...]
    content: Tensor

    @property
    def nbytes(self) -> int:
        """B, of the numbers."""
        return self.content.numel()

    @property
    def is_exact(self) -> bool:
        """Whether all of it is kept in the dtypes of the teacher's pass."""
        return all(each.kept == each.dtype for each in self.maps)

    def tensors(self) -> Iterator[Tensor]:
        """Each of ``maps``, in the dtype that it is kept in."""
        for each in self.maps:
            end = each.begin + math.prod(each.shape) * each.kept.itemsize
            yield self.content[each.begin : end].view(each.kept).view(each.shape)


def pack(levels: Mapping[str, Sequence[Tensor]], half: bool) -> Entry | None:
    """The entry of an image or a batch; None if a number is not finite.

    Args:
        levels: {name: L x (C, Hl, Wl)} or L x (N, C, Hl, Wl), on the CPU.
        half: keep what is wider than 16 bits in float16, unless a number is too large for that.
    """
    maps, parts, begin = [], [], 0
    for name, tensors in levels.items():
        for tensor in tensors:
            kept = _kept(tensor.detach().contiguous(), half)
            if kept is None:
                return None
            maps.append(Map(name, tuple(tensor.shape), tensor.dtype, kept.dtype, begin))
            numbers = kept.view(-1).view(torch.uint8)
            gap = -numbers.numel() % _ALIGNED
            parts += [numbers, numbers.new_zeros(gap)]
            begin += numbers.numel() + gap
    return Entry(tuple(maps), torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8))


def _kept(tensor: Tensor, half: bool) -> Tensor | None:
    if half and tensor.element_size() > 2:
        narrow = tensor.half()
        if narrow.isfinite().all():
            return narrow
    return tensor if tensor.isfinite().all() else None
