"""What PGD's released code does instead of the paper: ``PGD(compat="released")``.

The letters are those of the list in the docstring of :class:`dense_kd.methods.pgd.PGD`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...detectors.assignment.locations import box_centers
from ...outputs import DensePass
from .weighting import (
    best_locations,
    moments,
    object_chunks,
    points_in_boxes,
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
    transposed: bool,
    jitter: Tensor | None = None,
) -> Tensor:
    """The foreground mask of an image as the released code computes it.

    The ``topk`` best locations are chosen in and outside the box (d), mean and covariance are those
    of jittered points (e), and the weights of the chosen that are not in the box are set to 0.

    Args:
        points, scores, boxes, gt_boxes, gt_classes, iou_exponent, topk: see
            :func:`.weighting.foreground_weights`.
        transposed: look for the point (y, x) in the box instead of (x, y) (b).
        jitter: (M, T, 2) pixels to move the chosen points by; uniform in +-0.05 by default.

    Returns:
        (P,)
    """
    weights = points.new_zeros(len(points))
    topk = min(topk, len(points))
    if jitter is None:
        jitter = (torch.rand(len(gt_boxes), topk, 2).to(points) - 0.5) * (2 * JITTER)
    for chunk in object_chunks(len(gt_boxes), boxes):
        objects = gt_boxes[chunk]
        quality = prediction_quality(scores, boxes, objects, gt_classes[chunk], iou_exponent)
        quality = quality.unflatten(1, (len(points), -1)).amax(dim=2)  # (M, P)
        _, chosen = best_locations(quality, topk)  # (M, T)
        moved = points[chosen] + jitter[chunk]  # (M, T, 2)
        mean, covariance = moments(moved, torch.ones_like(chosen, dtype=torch.bool))
        distance = squared_distance(points[chosen] - mean, covariance[:, None], eps=1e-10)
        inside = released_points_in_boxes(points, objects, transposed).gather(1, chosen)
        # Of rounding, a distance may be negative, and its exponential infinite, without jitter.
        values = torch.where(inside, (-0.5 * distance.clamp(min=0)).exp(), 0.0)
        weights = torch.maximum(weights, scatter_largest(values, chosen, len(points)))
    return weights


def are_points(dense: DensePass) -> bool:
    """Whether predictions are made from points: boxes of their stride's size."""
    return all(
        bool(((priors[:, 2:] - priors[:, :2]) - stride).abs().max() < 1e-3)
        for priors, stride in zip(dense.priors, dense.strides)
    )


@torch.no_grad()
def released_background(points: Tensor, gt_boxes: Tensor, transposed: bool) -> Tensor:
    """(P,) bool: locations (P, 2) that are in none of the boxes (M, 4), see ``transposed``."""
    background = torch.ones(len(points), dtype=torch.bool, device=points.device)
    for chunk in object_chunks(len(gt_boxes), points):
        background &= ~released_points_in_boxes(points, gt_boxes[chunk], transposed).any(dim=0)
    return background


def released_points_in_boxes(points: Tensor, boxes: Tensor, transposed: bool) -> Tensor:
    """(M, P) bool: whether points (P, 2) as (x, y), or as (y, x), are in boxes (M, 4)."""
    return points_in_boxes(points.flip(1) if transposed else points, boxes)


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
    strides = torch.tensor(teacher.strides[:num_images], device=teacher.priors[0].device)
    levels = []
    for boxes, priors, stride in zip(teacher.boxes, teacher.priors, teacher.strides):
        centers = box_centers(priors).repeat(1, 2)  # (Hl*Wl*A, 4)
        levels.append(centers + (boxes - centers) * (strides / stride)[:, None, None])
    return levels


def released_normalization(
    cls: Tensor, bbox: Tensor, background: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`dense_kd.methods.pgd.terms.normalize_per_image`, but in the class branch every
    image has the sum of all images' masks (a), and the mean of the box branch is over the cells of
    all images (f)."""
    cls, background = (
        (mask / mask.count_nonzero(dim=(1, 2)).clamp(min=1)[:, None, None])
        .sum(dim=0, keepdim=True)
        .expand_as(mask)
        for mask in (cls, background)
    )
    cells = (bbox != 0).to(bbox)
    return cls, background, cells / cells.sum().clamp(min=1)
