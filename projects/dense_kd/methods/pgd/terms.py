"""The terms of PGD's losses on one level: pure functions of features and masks.

Symbols are those of the docstring of :class:`dense_kd.methods.pgd.PGD`.
"""

from __future__ import annotations

from torch import Tensor

from ..base.attention import spatial_attention


def channel_attention(feature: Tensor, temperature: float) -> Tensor:
    """A, of the shape (N, C, ...) of ``feature``; its mean over channels is 1."""
    return feature.shape[1] * (feature.abs() / temperature).softmax(dim=1)


def cls_terms(
    feature: Tensor,
    teacher_feature: Tensor,
    foreground: Tensor,
    background: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The class branch on a level, without weights.

    Args:
        feature, teacher_feature: (N, C, Hl, Wl).
        foreground, background: (N, Hl, Wl), normalised.
        temperature: tau.

    Returns:
        foreground, background and attention term; scalars.
    """
    spatial = spatial_attention(teacher_feature, temperature)  # (N, Hl, Wl)
    channel = channel_attention(teacher_feature, temperature)  # (N, C, Hl, Wl)
    distance = spatial * (channel * (teacher_feature - feature).square()).sum(dim=1)
    num_images, cells = len(feature), spatial[0].numel()
    of_channels = (channel - channel_attention(feature, temperature)).abs().sum() / cells
    of_cells = (spatial - spatial_attention(feature, temperature)).abs().sum()
    return (
        (foreground * distance).sum() / num_images,
        (background * distance).sum() / num_images,
        (of_channels + of_cells) / num_images,
    )


def bbox_terms(
    feature: Tensor, teacher_feature: Tensor, mask: Tensor, share: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """The box branch on a level, without weights.

    Args:
        feature, teacher_feature: (N, C, Hl, Wl).
        mask: (N, Hl, Wl), I.
        share: (N, Hl, Wl), of the cells with I > 0 in the mean over cells.
        temperature: tau.

    Returns:
        feature and attention term; scalars, with a graph also where the mask is 0.
    """
    cells = mask != 0
    ours, theirs = (x.permute(0, 2, 3, 1)[cells] for x in (feature, teacher_feature))  # (P, C)
    channel = channel_attention(theirs, temperature)
    distance = (channel * (ours - theirs).square()).mean(dim=1)  # (P,)
    attention = (channel - channel_attention(ours, temperature)).abs().sum(dim=1)  # (P,)
    share = share[cells]
    return (share * mask[cells] * distance).sum(), (share * attention).sum()


def normalize_per_image(
    cls: Tensor, bbox: Tensor, background: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the cells of a level count in its sums.

    Args:
        cls, bbox, background: masks, (N, Hl, Wl) each.

    Returns:
        ``cls`` and ``background`` divided by the number of their cells that are not 0, of each
        image; and the share of a cell in the mean over the cells of ``bbox``, and over images.
    """
    cls, background, cells = (
        mask / mask.count_nonzero(dim=(1, 2)).clamp(min=1)[:, None, None]
        for mask in (cls, background, (bbox != 0).to(bbox))
    )
    return cls, background, cells / len(bbox)
