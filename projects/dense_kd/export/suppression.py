"""Class-wise non-maximum suppression of a batch, with torchvision's operator or with ONNX's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms


def suppressed(
    boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, num_classes: int
) -> Tensor:
    """What is kept of each image.

    Args:
        boxes: (N, T, 4).
        scores: (N, T); those that are 0 are no candidates.
        classes: (N, T).
        threshold: IoU.
        num_classes: K.

    Returns:
        (N, T) bool
    """
    N, T = scores.shape
    if torch.onnx.is_in_onnx_export():
        apart = scores.new_zeros(N, num_classes, T)
        apart = apart.scatter(1, classes.unsqueeze(1), scores.unsqueeze(1))
        found = _NonMaxSuppression.apply(boxes, apart, T, threshold)  # (P, 3)
        index = found[:, 0] * T + found[:, 2]
    else:
        # Boxes of other images and classes are moved apart, in float64, which rounds nothing away.
        images = torch.arange(N, device=boxes.device).unsqueeze(1)
        group = (images * num_classes + classes).flatten()
        candidates = (scores.flatten() > 0).nonzero().squeeze(1)
        moved = boxes.flatten(0, 1).double()
        moved = moved + (group * (moved.max() - moved.min() + 1)).unsqueeze(1)
        found = nms(moved[candidates], scores.flatten()[candidates].double(), threshold)
        index = candidates[found]
    kept = torch.zeros_like(scores, dtype=torch.bool).flatten()
    return kept.scatter(0, index, torch.ones_like(index, dtype=torch.bool)).view(N, T)


class _NonMaxSuppression(torch.autograd.Function):
    """ONNX's operator; while a graph is made, its result is of the right shape and nothing more."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, most: int, threshold: float) -> Tensor:
        return torch.zeros(1, 3, dtype=torch.int64)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, most: Any, threshold: float) -> Any:
        def constant(value: Any, dtype: torch.dtype) -> Any:
            return g.op("Constant", value_t=torch.tensor(value, dtype=dtype))

        if isinstance(most, int):
            most = constant(most, torch.int64)
        limits = constant(threshold, torch.float32), constant(0.0, torch.float32)
        return g.op("NonMaxSuppression", boxes, scores, most, *limits)
