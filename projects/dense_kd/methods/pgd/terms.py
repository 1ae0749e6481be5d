"""The terms of PGD's losses: pure functions of features and masks.

Symbols are those of the docstring of :class:`dense_kd.methods.pgd.PGD`; P are the cells of all
levels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...losses import rows_of_sum
from ..base.levels import Levels, Places, joined, listed


def channel_attention(feature: Tensor, temperature: float) -> Tensor:
    """A, of the shape (N, C, ...) of ``feature``; its mean over channels is 1."""
    return feature.shape[1] * (feature.abs() / temperature).softmax(dim=1)


def cls_terms(
    feature: Levels,
    teacher_feature: Levels,
    foreground: Levels,
    background: Levels,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The class branch, sums over the levels without weights.

    Args:
        feature, teacher_feature: L x (N, C, Hl, Wl).
        foreground, background: L x (N, Hl, Wl) or (N, P), normalised.
        temperature: tau.

    Returns:
        foreground, background and attention term; scalars.
    """
    places = Places(feature, dim=2)
    ours, theirs = joined(feature, 2), joined(teacher_feature, 2)  # (N, C, P)
    (channel, magnitude), (teacher_channel, teacher_magnitude) = (
        _channel_attention(x, temperature) for x in (ours, theirs)
    )
    spatial, teacher_spatial = places.softmax(torch.stack((magnitude, teacher_magnitude)))
    num_images, width = ours.shape[:2]
    cells = places.spread(places.counts)  # (P,), HW
    squares = F.mse_loss(ours, theirs, reduction="none")  # (N, C, P)
    distance = width * cells * teacher_spatial * (teacher_channel * squares).sum(dim=1)  # (N, P)
    of_channels = F.l1_loss(channel, teacher_channel, reduction="none").sum(dim=1)  # (N, P)
    of_cells = F.l1_loss(spatial, teacher_spatial, reduction="none")  # (N, P)
    return (
        (joined(foreground) * distance).sum() / num_images,
        (joined(background) * distance).sum() / num_images,
        (width / cells * of_channels + cells * of_cells).sum() / num_images,
    )


def _channel_attention(feature: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """A / C, (N, C, P), and what P is the softmax of, (N, P)."""
    magnitude = feature.abs().div_(temperature)
    return magnitude.softmax(dim=1), magnitude.mean(dim=1)


def bbox_terms(
    feature: Levels, teacher_feature: Levels, mask: Levels, share: Levels, temperature: float
) -> tuple[Tensor, Tensor]:
    """The box branch, sums over the levels without weights.

    Args:
        feature, teacher_feature: L x (N, C, Hl, Wl).
        mask: L x (N, Hl, Wl) or (N, P), I.
        share: as ``mask``, of the cells with I > 0 in the mean over cells; 0 for others.
        temperature: tau.

    Returns:
        feature and attention term; scalars, with a graph also where the mask is 0.
    """
    mask, share = joined(mask), joined(share)
    sizes = [level[0, 0].numel() for level in listed(feature)]
    rows = [rows_of_sum(level) for level in mask.split(sizes, dim=1)]

    def of_cells(levels: Levels) -> Tensor:
        """(..., C) of the cells that count, in the order of the levels."""
        by_cell = (level.flatten(2).transpose(1, 2) for level in listed(levels))  # (N, Hl*Wl, C)
        return torch.cat([level[index] for level, index in zip(by_cell, rows)], dim=-2)

    def of_masks(masks: Tensor) -> Tensor:
        return torch.cat([level[i] for level, i in zip(masks.split(sizes, dim=1), rows)], dim=-1)

    ours, theirs = of_cells(feature), of_cells(teacher_feature)
    mask, share = of_masks(mask), of_masks(share)
    teacher_channel = (theirs.abs() / temperature).softmax(dim=-1)
    channel = (ours.abs() / temperature).softmax(dim=-1)
    squares = F.mse_loss(ours, theirs, reduction="none")  # (..., C)
    distance = (teacher_channel * squares).sum(dim=-1)  # the mean over C of A (F_T - F_S)^2
    attention = F.l1_loss(channel, teacher_channel, reduction="none").sum(dim=-1)
    return (share * mask * distance).sum(), ours.shape[-1] * (share * attention).sum()


def normalize_per_image(cls: Levels, bbox: Levels, background: Levels) -> tuple[Tensor, ...]:
    """What the cells of a level count in its sums.

    Args:
        cls, bbox, background: masks, L x (N, Hl, Wl) each.

    Returns:
        (N, P) each: ``cls`` and ``background`` divided by the number of their cells that are not 0,
        of each image and level; and the share of a cell in the mean over the cells of ``bbox``, and
        over images.
    """
    masks, cells, counts = counted(cls, bbox, background)
    shares = torch.stack((masks[0], cells[1] / masks.shape[1], masks[2])) / counts.clamp(min=1)
    return shares[0], shares[2], shares[1]


def counted(*masks: Levels) -> tuple[Tensor, Tensor, Tensor]:
    """Masks of all levels, (n, N, P), which of their cells are not 0, 0 or 1, and the number of
    those in the same image and level, both of the same shape.

    Args:
        masks: n times L x (N, Hl, Wl).
    """
    places = Places(masks[0])
    stacked = torch.stack([joined(levels) for levels in masks])
    cells = (stacked != 0).to(stacked)
    return stacked, cells, places.spread(places.sums(cells))
