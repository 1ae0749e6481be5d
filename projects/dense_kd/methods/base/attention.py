"""Where features are large, as FKD weighs cells."""

from __future__ import annotations

from torch import Tensor


def spatial_attention(feature: Tensor, temperature: float) -> Tensor:
    """HW softmax_hw(mean_c |F| / temperature), whose mean over the cells is 1.

    Args:
        feature: (N, C, Hl, Wl), F.
        temperature: the lower, the more the largest stand out.

    Returns:
        (N, Hl, Wl)
    """
    magnitude = feature.abs().mean(dim=1)
    weights = (magnitude.flatten(1) / temperature).softmax(dim=1)
    return weights.view_as(magnitude) * magnitude[0].numel()
