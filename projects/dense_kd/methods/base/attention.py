"""Where features are large, as FKD, FGD and PGD weigh cells and channels."""

from __future__ import annotations

from torch import Tensor


def attention_weights(magnitudes: Tensor, temperature: float) -> Tensor:
    """n softmax(magnitudes / temperature) over the n elements of each image; their mean is 1.

    Args:
        magnitudes: (N, ...).
        temperature: the lower, the more the largest stand out.

    Returns:
        (N, ...)
    """
    weights = (magnitudes.flatten(1) / temperature).softmax(dim=1).view_as(magnitudes)
    return weights * magnitudes[0].numel()


def spatial_attention(feature: Tensor, temperature: float) -> Tensor:
    """HW softmax_hw(mean_c |F| / temperature), see :func:`attention_weights`.

    Args:
        feature: (N, C, Hl, Wl), F.
        temperature: of the softmax.

    Returns:
        (N, Hl, Wl)
    """
    return attention_weights(feature.abs().mean(dim=1), temperature)
