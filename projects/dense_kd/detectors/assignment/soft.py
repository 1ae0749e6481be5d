"""Learning from every location in a box, with weights instead of labels, as AutoAssign does (Zhu et
al., "AutoAssign: Differentiable Label Assignment for Dense Object Detection", arXiv 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

EPS = 1e-12
LOSS_WITHOUT_LOCATION = 100.0
BOXES_AT_ONCE = 64
"""Boxes that all locations are compared with at once, which bounds the memory this takes."""


@dataclass
class Pairs:
    """Each location of an image with each box it is in, ordered by location, then by box.

    They are few, while losses of all (R, M) would not fit in memory for crowds.

    Attributes:
        points: (P,), indices of the locations.
        objects: (P,), indices of the boxes.
        classes: (P,), of the boxes.
        boxes: (P, 4).
    """

    points: Tensor
    objects: Tensor
    classes: Tensor
    boxes: Tensor

    @classmethod
    def find(cls, priors: Tensor, instances: Instances) -> Pairs:
        """Those of ``priors`` (R, 4) and the ground truth of an image."""
        gt_boxes = instances.gt_boxes.tensor
        points, objects = points_inside(priors, gt_boxes).nonzero(as_tuple=True)
        return cls(points, objects, instances.gt_classes[objects], gt_boxes[objects])


def points_inside(priors: Tensor, boxes: Tensor) -> Tensor:
    """(R, M) bool: whether the centres of ``priors`` (R, 4) are within ``boxes`` (M, 4).

    A centre on a side is not.
    """
    x, y = ((priors[:, :2] + priors[:, 2:]) / 2)[:, None].unbind(dim=2)  # (R, 1) each
    x1, y1, x2, y2 = boxes.unbind(dim=1)  # (M,) each
    return (x > x1) & (y > y1) & (x < x2) & (y < y2)


def positive_loss(
    log_confidence: Tensor, log_prior: Tensor, objects: Tensor, num_objects: int
) -> Tensor:
    """Sum over the boxes of an image of -log(sum_i w_i p_i), i running over the locations in it.

        w_i = exp(3 p_i) G_i / sum_j exp(3 p_j) G_j

    ("confidence weighting" of the paper with the temperature 1/3; gradients go through w, too.)
    Computed from logarithms, so that no score or prior underflows. A box that no location is in
    adds a constant, which nothing learns from: 100, at which torch's binary cross-entropy bounds
    -log(0), and so mmdetection's loss.

    Args:
        log_confidence: (P,), log of p of each pair of a location and a box.
        log_prior: (P,), log of G.
        objects: (P,), indices of the boxes.
        num_objects: M, all boxes of the image.
    """
    found, groups = objects.unique(return_inverse=True)
    log_weight = 3 * log_confidence.exp() + log_prior
    total = grouped_logsumexp(log_weight, groups, len(found))
    loss = total - grouped_logsumexp(log_weight + log_confidence, groups, len(found))  # (found,)
    return loss.sum() + LOSS_WITHOUT_LOCATION * (num_objects - len(found))


def grouped_logsumexp(values: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """log(sum(exp(values))) of each group.

    Args:
        values: (P,).
        groups: (P,) in 0..num_groups-1, each of which occurs.
        num_groups: their number.

    Returns:
        (num_groups,)
    """
    largest = values.detach().new_full((num_groups,), float("-inf"))
    largest = largest.scatter_reduce(0, groups, values.detach(), "amax")
    sums = values.new_zeros(num_groups).index_add(0, groups, (values - largest[groups]).exp())
    return sums.log() + largest


@torch.no_grad()
def negative_weights(boxes: Tensor, gt_boxes: Boxes, pairs: Pairs, num_classes: int) -> Tensor:
    """How much each location counts as a negative of each class.

    This is 1, but for the class of a box that the location is in: there it is 1 - f, where f is
    1 / (1 - IoU), scaled to [0, 1] by its smallest and largest value in that box. The IoU is the
    largest of the location's predicted box with any box of the image. If f is the same in all of a
    box, as for a single location, it counts as 1. Of several boxes of one class that a location is
    in, the last decides, as in mmdetection.

    Args:
        boxes: (R, 4), predicted.
        gt_boxes: all boxes of the image.
        pairs: of the locations and the boxes they are in.
        num_classes: K.

    Returns:
        (R, K) in [0, 1].
    """
    weights = boxes.new_ones(len(boxes) * num_classes)
    if len(pairs.points) == 0:
        return weights.view(-1, num_classes)
    overlap = boxes.new_zeros(len(boxes))
    for some in gt_boxes.tensor.split(BOXES_AT_ONCE):
        overlap = torch.maximum(overlap, pairwise_iou(Boxes(boxes), Boxes(some)).amax(dim=1))
    f = (1 / (1 - overlap).clamp(min=EPS))[pairs.points]  # (P,)
    infinite = f.new_full((len(gt_boxes),), float("inf"))
    low = infinite.scatter_reduce(0, pairs.objects, f, "amin")[pairs.objects]
    high = (-infinite).scatter_reduce(0, pairs.objects, f, "amax")[pairs.objects]
    scaled = (f - low + EPS) / (high - low + EPS)
    cells = pairs.points * num_classes + pairs.classes
    # Writing to one cell several times has no defined order.
    last = torch.full_like(weights, -1, dtype=torch.int64)
    last = last.scatter_reduce(0, cells, pairs.objects, "amax")
    decides = last[cells] == pairs.objects
    weights[cells[decides]] = 1 - scaled[decides]
    return weights.view(-1, num_classes)


def negative_loss(logits: Tensor, objectness: Tensor, weights: Tensor) -> Tensor:
    """Sum of (q w)^2 * -log(1 - q w) with q = sigmoid(logits) * sigmoid(objectness).

    Args:
        logits: (R, K).
        objectness: (R, 1), logits.
        weights: (R, K), w.
    """
    score, factor = logits.sigmoid(), objectness.sigmoid()
    # 1 - q, which rounds to 0 where both are close to 1
    missing = (-logits).sigmoid() + score * (-objectness).sigmoid()
    rest = (1 - weights) + weights * missing
    loss = (score * factor * weights).square() * -rest.clamp(min=torch.finfo(rest.dtype).tiny).log()
    return loss.sum()
