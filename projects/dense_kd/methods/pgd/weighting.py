"""Which locations of an image PGD distils, and how much: prediction-guided weighting (PGW).

Yang et al., "Prediction-Guided Distillation for Dense Object Detection", ECCV 2022, and the
other foreground masks of its Table 5. Pure functions on an image (no dimensions at "...") or on
several, also for plots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...detectors.assignment.locations import box_centers
from ...losses import elementwise_iou
from ..base.objects import chunks, points_in_any_box, points_in_boxes

FOREGROUNDS = ("box", "box_gaussian", "center", "quality", "topk", "kde", "ours")
"""Masks of Table 5, see :func:`foreground_weights`."""

CENTER = 0.2
"""Part of an object's width and height that is its centre."""

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
    iou_exponent: float | Sequence[float],
    topk: int = 30,
    strategy: str = "ours",
    valid: Tensor | None = None,
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
        scores: (..., P*A, K) in [0, 1], predicted class scores; where a location has several
            anchors, the best of their qualities is its own.
        boxes: (..., P*A, 4), predicted boxes.
        gt_boxes: (..., M, 4), may be empty; those without area give no weight.
        gt_classes: (..., M) int64.
        iou_exponent: xi in [0, 1], or E of them.
        topk: most locations per object.
        strategy: one of :data:`FOREGROUNDS`.
        valid: (..., P) bool, locations that may have a weight; None is all.

    Returns:
        (..., P) in [0, 1], or of several exponents (E, ..., P)
    """
    if strategy not in FOREGROUNDS:
        raise ValueError(f"strategy={strategy!r}: expected one of {FOREGROUNDS}")
    exponents = [iou_exponent] if isinstance(iou_exponent, (int, float)) else [*iou_exponent]
    weights = points.new_zeros(len(exponents), *boxes.shape[:-2], len(points))
    for chunk in object_chunks(gt_boxes, boxes):
        objects = gt_boxes[..., chunk, :]
        inside = points_in_boxes(points, objects)  # (..., M, P)
        if valid is not None:
            inside = inside & valid[..., None, :]
        if strategy == "box":
            best = inside.to(weights).amax(dim=-2)
        elif strategy == "center":
            in_center = points_in_boxes(points, _shrunk(objects, CENTER)) & inside
            best = in_center.to(weights).amax(dim=-2)
        elif strategy == "box_gaussian":
            best = (inside * _box_gaussian(points, objects)).amax(dim=-2)
        else:
            quality = prediction_quality(
                scores, boxes, objects, gt_classes[..., chunk], exponents
            )  # (E, ..., M, P*A)
            quality = quality.unflatten(-1, (len(points), -1)).amax(dim=-1)
            if strategy == "quality":
                best = (inside * quality).amax(dim=-2)
            else:
                values, chosen = best_locations(quality.masked_fill(~inside, -1.0), topk)
                values = _WEIGHTINGS[strategy](points[chosen], values >= 0)
                best = scatter_largest(values.to(weights), chosen, len(points))
        weights = torch.maximum(weights, best)
    return weights[0] if isinstance(iou_exponent, (int, float)) else weights


@torch.no_grad()
def prediction_quality(
    scores: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    iou_exponent: float | Sequence[float],
) -> Tensor:
    """q of :func:`foreground_weights`, wherever the prediction is.

    Args:
        scores: (..., R, K) in [0, 1].
        boxes: (..., R, 4).
        gt_boxes: (..., M, 4).
        gt_classes: (..., M) int64.
        iou_exponent: xi, or E of them.

    Returns:
        (..., M, R), or of several exponents (E, ..., M, R)
    """
    of_objects = gt_classes[..., None, :].expand(*scores.shape[:-1], -1)
    score = scores.gather(-1, of_objects).transpose(-1, -2)  # (..., M, R)
    iou = elementwise_iou(boxes[..., None, :, :], gt_boxes[..., None, :])
    if isinstance(iou_exponent, (int, float)):
        return score.pow(1 - iou_exponent) * iou.pow(iou_exponent)
    return torch.stack([score.pow(1 - xi) * iou.pow(xi) for xi in iou_exponent])


def background_mask(points: Tensor, gt_boxes: Tensor) -> Tensor:
    """(..., P) bool: locations (P, 2) that are in none of the boxes (..., M, 4)."""
    return ~points_in_any_box(points, gt_boxes)


def best_locations(quality: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """The ``topk`` largest of (..., M, P) per object, or all, and where, both (..., M, T)."""
    return quality.topk(min(topk, quality.shape[-1]), dim=-1)


def scatter_largest(values: Tensor, locations: Tensor, num_locations: int) -> Tensor:
    """(..., P): the largest of the ``values`` >= 0 at each of the ``locations``, (..., M, T)."""
    values, locations = values.flatten(-2), locations.flatten(-2)
    largest = values.new_zeros(*values.shape[:-1], num_locations)
    return largest.scatter_reduce_(-1, locations, values, reduce="amax")


def object_chunks(gt_boxes: Tensor, predictions: Tensor) -> Iterator[slice]:
    """Slices of the M objects, each few enough to be compared with all ``predictions``.

    Args:
        gt_boxes: (..., M, 4).
        predictions: (..., R, n).
    """
    num_predictions = predictions[..., 0].numel()
    return chunks(gt_boxes.shape[-2] if num_predictions else 0, num_predictions)


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
    """Means (..., 1, 2) and covariances (..., 2, 2) of the ``valid`` (..., T) of the points
    (..., T, 2)."""
    share = valid.to(points) / valid.sum(dim=-1, keepdim=True).clamp(min=1)  # (..., T)
    mean = (share[..., None] * points).sum(dim=-2, keepdim=True)
    offsets = points - mean
    products = offsets[..., :, None] * offsets[..., None, :]  # (..., T, 2, 2)
    return mean, (share[..., None, None] * products).sum(dim=-3)


def _moments_with_floor(points: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    mean, covariance = moments(points, valid)
    floor = torch.full_like(covariance[..., 0], VARIANCE_FLOOR)
    return mean, covariance + floor.diag_embed()


def _gaussian(points: Tensor, valid: Tensor) -> Tensor:
    # In float32 the determinant of points on a diagonal would be nothing but rounding.
    points = points.double()
    mean, covariance = _moments_with_floor(points, valid)
    return valid * (-0.5 * squared_distance(points - mean, covariance[..., None, :, :])).exp()


def _kernel_density(points: Tensor, valid: Tensor) -> Tensor:
    points = points.double()
    _, covariance = _moments_with_floor(points, valid)
    count = valid.sum(dim=-1).clamp(min=1).double()
    kernel = covariance * count.pow(-1 / 3)[..., None, None]
    offsets = points[..., :, None, :] - points[..., None, :, :]  # (..., T, T, 2)
    density = (-0.5 * squared_distance(offsets, kernel[..., None, None, :, :])).exp()
    density = valid * (density * valid[..., None, :]).sum(dim=-1)  # (..., T)
    return density / density.amax(dim=-1, keepdim=True).clamp(min=1)  # a point is in its kernel


def _equal(points: Tensor, valid: Tensor) -> Tensor:
    return valid


_WEIGHTINGS = {"ours": _gaussian, "kde": _kernel_density, "topk": _equal}
"""From points (..., T, 2) and which of them are valid (..., T) to weights (..., T)."""


def _box_gaussian(points: Tensor, boxes: Tensor) -> Tensor:
    deviation = ((boxes[..., 2:] - boxes[..., :2]) / 4).clamp(min=VARIANCE_FLOOR**0.5)
    offsets = (points - box_centers(boxes)[..., None, :]) / deviation[
        ..., None, :
    ]  # (..., M, P, 2)
    return (-0.5 * offsets.square().sum(dim=-1)).exp()


def _shrunk(boxes: Tensor, factor: float) -> Tensor:
    center, half = box_centers(boxes), (boxes[..., 2:] - boxes[..., :2]) * (factor / 2)
    return torch.cat((center - half, center + half), dim=-1)
