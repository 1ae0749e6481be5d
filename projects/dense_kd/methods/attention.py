"""Where features are large, as FKD, FGD and PGD weigh cells."""

from __future__ import annotations

from torch import Tensor


def spatial_attention(feature: Tensor, temperature: float) -> Tensor:
    """HW softmax_hw(mean_c |F| / temperature), whose mean over the cells of an image is 1.

    Args:
        feature: (N, C, Hl, Wl), F.
        temperature: the lower, the more the largest stand out.

    Returns:
        (N, Hl, Wl)
    """
    mean = feature.abs().mean(dim=1)  # (N, Hl, Wl)
    weights = (mean.flatten(1) / temperature).softmax(dim=1).view_as(mean)
    return weights * mean[0].numel()
