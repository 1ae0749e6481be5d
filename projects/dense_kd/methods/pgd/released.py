"""What PGD's released code does instead of the paper: ``PGD(compat="released")``.

The letters are those of the list in the docstring of :class:`dense_kd.methods.pgd.PGD`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...detectors.assignment.locations import box_centers
from ...outputs import DensePass
from ..base.levels import Levels
from ..base.objects import points_in_boxes
from .terms import counted
from .weighting import (
    background_mask,
    best_locations,
    moments,
    object_chunks,
    prediction_quality,
    scatter_largest,
    squared_distance,
)

JITTER = 0.05
"""Pixels that coordinates are moved by, at most."""


@torch.no_grad()
def released_weights(
    points: Tensor,
    scores: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    *,
    iou_exponent: float,
    topk: int,
    transposed: bool | Tensor,
    jitter: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """The foreground mask of an image as the released code computes it.

    The ``topk`` best locations are chosen in and outside the box (d), mean and covariance are those
    of jittered points (e), and the weights of the chosen that are not in the box are set to 0.

    Args:
        points, scores, boxes, gt_boxes, gt_classes, iou_exponent, topk: see
            :func:`.weighting.foreground_weights`.
        transposed: look for the point (y, x) in the box instead of (x, y) (b); a bool, also as
            a scalar tensor.
        jitter: (M, T, 2) pixels to move the chosen points by; uniform in +-0.05 by default.
        valid: (P,) bool, locations that may be chosen; None is all.

    Returns:
        (P,)
    """
    weights = points.new_zeros(len(points))
    topk = min(topk, len(points))
    if jitter is None:
        jitter = (torch.rand(len(gt_boxes), topk, 2) - 0.5) * (2 * JITTER)
        jitter = jitter.to(points, non_blocking=True)
    for chunk in object_chunks(gt_boxes, boxes):
        objects = gt_boxes[chunk]
        quality = prediction_quality(scores, boxes, objects, gt_classes[chunk], iou_exponent)
        quality = quality.unflatten(1, (len(points), -1)).amax(dim=2)  # (M, P)
        if valid is not None:
            quality = quality.masked_fill(~valid, -1.0)
        best, chosen = best_locations(quality, topk)  # (M, T) both
        moved = points[chosen] + jitter[chunk]  # (M, T, 2)
        mean, covariance = moments(moved, best >= 0)
        distance = squared_distance(points[chosen] - mean, covariance[:, None], eps=1e-10)
        inside = released_points_in_boxes(points, objects, transposed).gather(1, chosen)
        # Of rounding, a distance may be negative, and its exponential infinite, without jitter.
        values = (-0.5 * distance.clamp(min=0)).exp()
        values = torch.where(inside & (best >= 0), values, 0.0)
        weights = torch.maximum(weights, scatter_largest(values, chosen, len(points)))
    return weights


def are_points(dense: DensePass) -> Tensor:
    """Scalar bool: whether predictions are made from points, boxes of their stride's size."""
    differences = [
        (priors[:, 2:] - priors[:, :2]) - stride
        for priors, stride in zip(dense.priors, dense.strides)
    ]
    return torch.cat(differences).abs().amax() < 1e-3


@torch.no_grad()
def released_background(points: Tensor, gt_boxes: Tensor, transposed: bool | Tensor) -> Tensor:
    """(..., P) bool: locations (P, 2) that are in none of the boxes (..., M, 4), see
    ``transposed``."""
    return background_mask(_seen(points, transposed), gt_boxes)


def released_points_in_boxes(points: Tensor, boxes: Tensor, transposed: bool | Tensor) -> Tensor:
    """(M, P) bool: whether points (P, 2) as (x, y), or as (y, x), are in boxes (M, 4)."""
    return points_in_boxes(_seen(points, transposed), boxes)


def _seen(points: Tensor, transposed: bool | Tensor) -> Tensor:
    if isinstance(transposed, Tensor):
        return torch.where(transposed, points.flip(1), points)
    return points.flip(1) if transposed else points


def released_boxes(teacher: DensePass) -> list[Tensor]:
    """The teacher's boxes, L x (N, Hl*Wl*A, 4), whose distances are in strides of the wrong level.

    Boxes that are distributions over distances (GFL's) are decoded with the stride of level n for
    image n, on all levels (c).

    Raises:
        ValueError: there are more images than levels.
    """
    if teacher.distribution is None:
        return teacher.boxes
    num_images = len(teacher.image_sizes)
    if num_images > len(teacher.strides):
        raise ValueError(
            "compat='released' decodes boxes of distributions with a stride per image, and this "
            f"process has {num_images} images for {len(teacher.strides)} levels; use fewer images "
            "per process, or compat='corrected'"
        )
    strides = torch.tensor(teacher.strides[:num_images])
    strides = strides.to(teacher.priors[0].device, non_blocking=True)
    levels = []
    for boxes, priors, stride in zip(teacher.boxes, teacher.priors, teacher.strides):
        centers = box_centers(priors).repeat(1, 2)  # (Hl*Wl*A, 4)
        levels.append(centers + (boxes - centers) * (strides / stride)[:, None, None])
    return levels


def released_normalization(cls: Levels, bbox: Levels, background: Levels) -> tuple[Tensor, ...]:
    """As :func:`dense_kd.methods.pgd.terms.normalize_per_image`, but in the class branch every
    image has the sum of all images' masks (a), and the mean of the box branch is over the cells of
    all images (f)."""
    masks, cells, counts = counted(cls, bbox, background)
    of_all = (masks / counts.clamp(min=1)).sum(dim=1, keepdim=True).expand_as(masks)
    share = cells[1] / counts[1].sum(dim=0).clamp(min=1)
    return of_all[0], of_all[2], share
