"""Channels with mean 0 and standard deviation 1, as PKD compares and CrossKD aligns them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CELLS = (0, 2, 3)


@torch.no_grad()
def channel_statistics(feature: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased standard deviation and mean of each channel, over N, Hl and Wl; no gradient.

    Args:
        feature: (N, C, Hl, Wl); the deviation of a channel of one cell is 0.

    Returns:
        (1, C, 1, 1) both
    """
    cells = feature.numel() // feature.shape[1]
    correction = min(1, cells - 1)
    if feature.device.type != "cpu":
        return torch.std_mean(feature, dim=_CELLS, correction=correction, keepdim=True)
    # There it takes ten times as long as this, in which a constant channel deviates by 0 as well:
    # its mean, of which the rounding is taken back, is its value.
    mean = feature.mean(dim=_CELLS, keepdim=True)
    centred = feature - mean
    mean += centred.mean(dim=_CELLS, keepdim=True)
    squares = torch.sub(feature, mean, out=centred).square_().sum(dim=_CELLS, keepdim=True)
    return squares.div_(cells - correction).sqrt_(), mean


def standardized(features: Sequence[Tensor], eps: float = 1e-6) -> tuple[Tensor, ...]:
    """Maps with mean 0 and unbiased standard deviation 1 per channel, over N, Hl and Wl.

    Args:
        features: (N, C, Hl, Wl) each; where a channel has one cell, it becomes 0.
        eps: added to the standard deviations.

    Returns:
        (N, C, Hl, Wl) each, with gradient also through mean and deviation.
    """
    return _Standardized.apply(eps, *features) if features else ()


class _Standardized(torch.autograd.Function):
    """Keeps its results for the gradient, and computes that in a third of the operations; what has
    one number a channel is computed for all maps at once."""

    @staticmethod
    def forward(ctx: Any, eps: float, *features: Tensor) -> tuple[Tensor, ...]:
        stds, means = zip(*map(channel_statistics, features))
        std = torch.cat(stds, dim=1)  # (1, the C of all maps, 1, 1)
        scale = (std + eps).reciprocal()
        ctx.widths = [feature.shape[1] for feature in features]
        results = tuple(
            (feature - mean).mul_(factor)
            for feature, mean, factor in zip(features, means, scale.split(ctx.widths, dim=1))
        )
        ctx.save_for_backward(std, scale, *results)
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With z a result and its gradient g, of m cells, of which the deviation is std,
        scale (g - mean g) - z sum(g z) / ((m - 1) std)."""
        std, scale, *results = ctx.saved_tensors
        along = [(g * z).sum(dim=_CELLS, keepdim=True) for g, z in zip(gradients, results)]
        # 0 for a constant channel
        along = torch.cat(along, dim=1) / std.clamp(min=torch.finfo(std.dtype).tiny)
        factors = (x.split(ctx.widths, dim=1) for x in (scale, along))
        found = []
        for gradient, result, factor, share in zip(gradients, results, *factors):
            cells = result.numel() // result.shape[1]
            centred = (gradient - gradient.mean(dim=_CELLS, keepdim=True)).mul_(factor)
            found.append(centred.addcmul_(result, share, value=-1 / max(cells - 1, 1)))
        return None, *found
