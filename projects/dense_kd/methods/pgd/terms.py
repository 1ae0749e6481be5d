"""The terms of PGD's losses: pure functions of features and masks.

Symbols are those of the docstring of :class:`dense_kd.methods.pgd.PGD`; P are the cells of all
levels.
"""

from __future__ import annotations

from typing import Union

import torch
import torch.nn.functional as F
from torch import Tensor

from ...losses import rows_of_sum
from ..base.attention import attention_weights

Levels = Union[Tensor, list[Tensor]]
"""Maps of L levels, or the one of a single level."""


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
    sizes = [level[0, 0].numel() for level in _listed(feature)]
    ours, theirs = _joined(feature, 2), _joined(teacher_feature, 2)  # (N, C, P)
    channel, spatial = _attention(ours, temperature, sizes)
    teacher_channel, teacher_spatial = _attention(theirs, temperature, sizes)
    num_images, width = ours.shape[:2]
    squares = F.mse_loss(ours, theirs, reduction="none")  # (N, C, P)
    distance = width * teacher_spatial * (teacher_channel * squares).sum(dim=1)  # (N, P)
    of_channels = F.l1_loss(channel, teacher_channel, reduction="none").sum(dim=1)  # (N, P)
    of_channels = torch.stack([level.mean() for level in of_channels.split(sizes, dim=1)]).sum()
    of_cells = F.l1_loss(spatial, teacher_spatial, reduction="sum") / num_images
    return (
        (_joined(foreground) * distance).sum() / num_images,
        (_joined(background) * distance).sum() / num_images,
        width * of_channels + of_cells,
    )


def _attention(feature: Tensor, temperature: float, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """A / C, (N, C, P), and P, (N, P)."""
    magnitude = feature.abs().div_(temperature)
    levels = magnitude.mean(dim=1).split(sizes, dim=1)
    spatial = torch.cat([attention_weights(level, 1.0) for level in levels], dim=1)
    return magnitude.softmax(dim=1), spatial


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
    mask, share = _joined(mask), _joined(share)
    sizes = [level[0, 0].numel() for level in _listed(feature)]
    rows = [rows_of_sum(level != 0) for level in mask.split(sizes, dim=1)]

    def of_cells(levels: Levels) -> Tensor:
        """(..., C) of the cells that count, in the order of the levels."""
        by_cell = (level.flatten(2).transpose(1, 2) for level in _listed(levels))  # (N, Hl*Wl, C)
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
    sizes = [level[0].numel() for level in _listed(masks[0])]
    joined = torch.stack([_joined(levels) for levels in masks])
    cells = (joined != 0).to(joined)
    levels = cells.split(sizes, dim=2)
    counts = [level.sum(dim=2, keepdim=True).expand_as(level) for level in levels]
    return joined, cells, torch.cat(counts, dim=2)


def _listed(levels: Levels) -> list[Tensor]:
    return [levels] if isinstance(levels, Tensor) else levels


def _joined(levels: Levels, dim: int = 1) -> Tensor:
    """(..., P) of L x (..., Hl, Wl), whose map begins at ``dim``."""
    return torch.cat([level.flatten(dim) for level in _listed(levels)], dim=dim)
