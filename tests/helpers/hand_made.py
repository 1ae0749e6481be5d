"""Passes whose every prediction is given, to compare maps of them with values worked by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dense_kd.outputs import DensePass


def hand_made_pass(
    scores: Sequence[Sequence],
    sizes: Sequence[tuple[int, int]],
    *,
    num_anchors: int = 1,
    strides: Sequence[int] = (8, 16),
    boxes: Sequence[Sequence] | None = None,
) -> DensePass:
    """A pass over one image that fills the input.

    Args:
        scores: L x (Hl*Wl*A, K), class scores in (0, 1).
        sizes: L x (Hl, Wl).
        num_anchors: A.
        strides: L.
        boxes: L x (Hl*Wl*A, 4); None: each prediction's own cell.
    """
    strides = list(strides[: len(sizes)])
    priors = [cells(size, stride, num_anchors) for size, stride in zip(sizes, strides)]
    given = priors if boxes is None else [torch.tensor(b).reshape(-1, 4) for b in boxes]
    height, width = (n * strides[0] for n in sizes[0])
    return DensePass(
        features=[torch.zeros(1, 1, *size) for size in sizes],
        logits=[torch.tensor(level, dtype=torch.float64).logit()[None].float() for level in scores],
        deltas=[(b - p)[None].float() for b, p in zip(given, priors)],
        priors=priors,
        strides=strides,
        num_anchors=num_anchors,
        image_sizes=[(height, width)],
        decode=lambda deltas, priors: priors + deltas,
    )


def cells(size: tuple[int, int], stride: int, num_anchors: int) -> Tensor:
    """(Hl*Wl*A, 4): the cells of a map, each A times."""
    rows, columns = (torch.arange(n, dtype=torch.float32) * stride for n in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    corners = torch.stack((x, y, x + stride, y + stride), dim=-1).flatten(0, 1)
    return corners.repeat_interleave(num_anchors, dim=0)
