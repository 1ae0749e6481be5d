"""Channels with mean 0 and standard deviation 1, as PKD compares and CrossKD aligns them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CELLS = (0, 2, 3)


def channel_statistics(feature: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased standard deviation and mean of each channel, over N, Hl and Wl.

    Args:
        feature: (N, C, Hl, Wl); the deviation of a channel of one cell is 0.

    Returns:
        (1, C, 1, 1) both
    """
    cells = feature.numel() // feature.shape[1]
    return torch.std_mean(feature, dim=_CELLS, correction=min(1, cells - 1), keepdim=True)


def standardized(feature: Tensor, eps: float = 1e-6) -> Tensor:
    """``feature`` with mean 0 and unbiased standard deviation 1 per channel, over N, Hl and Wl.

    Args:
        feature: (N, C, Hl, Wl); where a channel has one cell, it becomes 0.
        eps: added to the standard deviation.

    Returns:
        (N, C, Hl, Wl), with gradient also through mean and deviation.
    """
    return _Standardized.apply(feature, eps)


class _Standardized(torch.autograd.Function):
    """Keeps its result for the gradient, and computes that in a third of the operations."""

    @staticmethod
    def forward(ctx: Any, feature: Tensor, eps: float) -> Tensor:
        std, mean = channel_statistics(feature)
        scale = (std + eps).reciprocal()
        result = (feature - mean).mul_(scale)
        ctx.save_for_backward(result, std, scale)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """With z the result and its gradient g, of m cells, of which the deviation is std,
        scale (g - mean g) - z sum(g z) / ((m - 1) std)."""
        result, std, scale = ctx.saved_tensors
        cells = result.numel() // result.shape[1]
        along = (gradient * result).sum(dim=_CELLS, keepdim=True)
        along = along / std.clamp(min=torch.finfo(std.dtype).tiny)  # 0 for a constant channel
        found = (gradient - gradient.mean(dim=_CELLS, keepdim=True)).mul_(scale)
        return found.addcmul_(result, along, value=-1 / max(cells - 1, 1)), None
