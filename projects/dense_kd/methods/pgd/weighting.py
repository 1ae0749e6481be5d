"""Which locations of an image PGD distils, and how much: prediction-guided weighting (PGW).

Yang et al., "Prediction-Guided Distillation for Dense Object Detection", ECCV 2022, and the
other foreground masks of its Table 5. Pure functions on one image, also for plots.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...detectors.assignment.locations import box_centers
from ...losses import elementwise_iou

FOREGROUNDS = ("box", "box_gaussian", "center", "quality", "topk", "kde", "ours")
"""Masks of Table 5, see :func:`foreground_weights`."""

CENTER = 0.2
"""Part of an object's width and height that is its centre."""

PAIRS_AT_ONCE = 2**21
"""Pairs of a box and a location that are compared at a time: more boxes take longer, not more
memory."""

VARIANCE_FLOOR = 1e-4
"""In square pixels, added to variances so that locations on a line have a covariance, too."""


@torch.no_grad()
def foreground_weights(
    points: Tensor,
    scores: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    *,
    iou_exponent: float,
    topk: int = 30,
    strategy: str = "ours",
) -> Tensor:
    """The foreground mask of an image: for each location the largest weight that an object gives.

    The quality of location i for object g of class c is that of the prediction there, with xi =
    ``iou_exponent``,

        q_ig = score_ic^(1 - xi) * IoU(box_i, g)^xi     where location i is in g, else 0

    and the locations T_g are the ``topk`` best in g, of all levels together, or as many as there
    are. The weight of i for g is, with ``strategy``

    * "ours" (PGD): exp(-(X_i - mu)^T Sigma^-1 (X_i - mu) / 2) for i in T_g with mean and
      covariance of the points X of T_g, plus 1e-4 square pixels on the diagonal, which a single
      point or a line needs;
    * "topk": 1 for i in T_g;
    * "kde": the kernel density estimate from T_g at i in T_g, in units of its largest value, with
      Gaussian kernels of the covariance of T_g times |T_g|^(-1/3) (Scott's rule);
    * "quality": q_ig;
    * "box": 1 in the box;
    * "box_gaussian": in the box, a Gaussian around its centre with standard deviations in
      proportion to its width and height, here a quarter of them;
    * "center": 1 in the box of the same centre and a fifth of the width and height.

    They are those of the paper's section 4.3, which leaves open the quarter of "box_gaussian", and
    the kernels and the unit of "kde". An object that no location is in gives no weight, and the
    points of all levels count for every object.

    Args:
        points: (P, 2), x and y of the locations of all levels.
        scores: (P*A, K) in [0, 1], predicted class scores; where a location has several anchors,
            the best of their qualities is its own.
        boxes: (P*A, 4), predicted boxes.
        gt_boxes: (M, 4), may be empty.
        gt_classes: (M,) int64.
        iou_exponent: xi in [0, 1].
        topk: most locations per object.
        strategy: one of :data:`FOREGROUNDS`.

    Returns:
        (P,) in [0, 1]
    """
    if strategy not in FOREGROUNDS:
        raise ValueError(f"strategy={strategy!r}: expected one of {FOREGROUNDS}")
    weights = points.new_zeros(len(points))
    for chunk in object_chunks(len(gt_boxes), boxes):
        objects = gt_boxes[chunk]
        inside = points_in_boxes(points, objects)  # (M, P)
        if strategy == "box":
            best = inside.to(weights).amax(dim=0)
        elif strategy == "center":
            best = points_in_boxes(points, _shrunk(objects, CENTER)).to(weights).amax(dim=0)
        elif strategy == "box_gaussian":
            best = (inside * _box_gaussian(points, objects)).amax(dim=0)
        else:
            quality = prediction_quality(scores, boxes, objects, gt_classes[chunk], iou_exponent)
            quality = quality.unflatten(1, (len(points), -1)).amax(dim=2)  # (M, P)
            if strategy == "quality":
                best = (inside * quality).amax(dim=0)
            else:
                values, chosen = best_locations(quality.masked_fill(~inside, -1.0), topk)
                values = _WEIGHTINGS[strategy](points[chosen], values >= 0)
                best = scatter_largest(values.to(weights), chosen, len(points))
        weights = torch.maximum(weights, best)
    return weights


@torch.no_grad()
def prediction_quality(
    scores: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_classes: Tensor, iou_exponent: float
) -> Tensor:
    """q of :func:`foreground_weights`, wherever the prediction is.

    Args:
        scores: (R, K) in [0, 1].
        boxes: (R, 4).
        gt_boxes: (M, 4).
        gt_classes: (M,) int64.
        iou_exponent: xi.

    Returns:
        (M, R)
    """
    score = scores[:, gt_classes].t()  # (M, R)
    iou = elementwise_iou(boxes[None], gt_boxes[:, None])  # (M, R)
    return score.pow(1 - iou_exponent) * iou.pow(iou_exponent)


@torch.no_grad()
def background_mask(points: Tensor, gt_boxes: Tensor) -> Tensor:
    """(P,) bool: locations (P, 2) that are in none of the boxes (M, 4)."""
    background = torch.ones(len(points), dtype=torch.bool, device=points.device)
    for chunk in object_chunks(len(gt_boxes), points):
        background &= ~points_in_boxes(points, gt_boxes[chunk]).any(dim=0)
    return background


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """(M, P) bool: whether points (P, 2) are strictly within boxes (M, 4)."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    return ((points > low) & (points < high)).all(dim=2)


def best_locations(quality: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """The ``topk`` largest of (M, P) per object, or all, and where they are, both (M, T)."""
    return quality.topk(min(topk, quality.shape[1]), dim=1)


def scatter_largest(values: Tensor, locations: Tensor, num_locations: int) -> Tensor:
    """(P,): the largest of the ``values`` (M, T) >= 0 of each of the ``locations`` (M, T)."""
    largest = values.new_zeros(num_locations)
    return largest.scatter_reduce_(0, locations.flatten(), values.flatten(), reduce="amax")


def object_chunks(num_objects: int, predictions: Tensor) -> Iterator[slice]:
    """Slices of the objects, each few enough to be compared with all ``predictions`` (R, ...)."""
    size = max(1, PAIRS_AT_ONCE // max(1, len(predictions)))
    for start in range(0, num_objects if len(predictions) else 0, size):
        yield slice(start, start + size)


def squared_distance(offsets: Tensor, covariance: Tensor, eps: float = 0.0) -> Tensor:
    """Squared Mahalanobis distances x^T Sigma^-1 x.

    Args:
        offsets: (..., 2), x.
        covariance: (..., 2, 2), broadcast with it, Sigma.
        eps: added to the determinants.

    Returns:
        (...)
    """
    x, y = offsets.unbind(dim=-1)
    xx, xy, yy = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    return (yy * x * x - 2 * xy * x * y + xx * y * y) / (xx * yy - xy * xy + eps)


def moments(points: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Means (M, 1, 2) and covariances (M, 2, 2) of the ``valid`` (M, T) of the points (M, T, 2)."""
    share = valid.to(points) / valid.sum(dim=1, keepdim=True).clamp(min=1)  # (M, T)
    mean = (share[..., None] * points).sum(dim=1, keepdim=True)
    offsets = points - mean
    products = offsets[..., :, None] * offsets[..., None, :]  # (M, T, 2, 2)
    return mean, (share[..., None, None] * products).sum(dim=1)


def _gaussian(points: Tensor, valid: Tensor) -> Tensor:
    # In float32 the determinant of points on a diagonal would be nothing but rounding.
    points = points.double()
    mean, covariance = moments(points, valid)
    covariance = covariance + VARIANCE_FLOOR * torch.eye(2).to(covariance)
    return valid * (-0.5 * squared_distance(points - mean, covariance[:, None])).exp()


def _kernel_density(points: Tensor, valid: Tensor) -> Tensor:
    points = points.double()
    _, covariance = moments(points, valid)
    covariance = covariance + VARIANCE_FLOOR * torch.eye(2).to(covariance)
    count = valid.sum(dim=1).clamp(min=1).double()
    kernel = covariance * count.pow(-1 / 3)[:, None, None]
    offsets = points[:, :, None] - points[:, None]  # (M, T, T, 2)
    density = (-0.5 * squared_distance(offsets, kernel[:, None, None])).exp()
    density = valid * (density * valid[:, None]).sum(dim=2)  # (M, T)
    return density / density.amax(dim=1, keepdim=True).clamp(min=1)  # a point is in its kernel


def _equal(points: Tensor, valid: Tensor) -> Tensor:
    return valid


_WEIGHTINGS = {"ours": _gaussian, "kde": _kernel_density, "topk": _equal}
"""From points (M, T, 2) and which of them are valid (M, T) to weights (M, T)."""


def _box_gaussian(points: Tensor, boxes: Tensor) -> Tensor:
    deviation = ((boxes[:, 2:] - boxes[:, :2]) / 4).clamp(min=VARIANCE_FLOOR**0.5)[:, None]
    offsets = (points - box_centers(boxes)[:, None]) / deviation  # (M, P, 2)
    return (-0.5 * offsets.square().sum(dim=2)).exp()


def _shrunk(boxes: Tensor, factor: float) -> Tensor:
    center, half = box_centers(boxes), (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    return torch.cat((center - half, center + half), dim=1)
