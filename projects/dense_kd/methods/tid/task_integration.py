"""The three modules of TID, for one image: which points of the pyramid matter how much.

Su, Jian and Yu, "Task Integration Distillation for Object Detectors", arXiv 2404.01699.

P are the points of an image (cells of all levels of the pyramid, without padding), in the order of
the levels. No function has a gradient. What the paper leaves open, and how it is read here, see
:class:`.tid.TID`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import nms

from ...losses import elementwise_iou
from ..ld.valuable_region import box_chunks

POSITIVE, BETWEEN, NEGATIVE = 2.0, 1.5, 0.4
"""Localisation scores of eq 1."""
TOP_SCORE = 1.5
"""Classification score of the best points (eq 2)."""
WEAK_SCORE = 1.5
"""Of the points where the student lags behind (eq 6)."""
MEDIUM_VALUE, LOW_VALUE = 1.0, 0.01
"""Values below them are medium and low (eq 11)."""
MEDIUM_FACTOR, LOW_FACTOR = 0.7, 0.05
"""What medium and low values are multiplied with (eq 11)."""


@dataclass
class PointPredictions:
    """What a detector predicts at the points of an image, compared with its objects.

    Attributes:
        boxes: (P, 4), at each point the predicted box that overlaps an object most.
        overlaps: (P,), its IoU with that object.
        objects: (P,) int64, the object's index; 0 where nothing overlaps.
        scores: (P,) in [0, 1], the class score for that object.
    """

    boxes: Tensor
    overlaps: Tensor
    objects: Tensor
    scores: Tensor


@torch.no_grad()
def point_predictions(
    logits: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_classes: Tensor
) -> PointPredictions:
    """Match the predictions of each point with the objects.

    Args:
        logits: (P, A, K), class logits.
        boxes: (P, A, 4), predicted.
        gt_boxes: (M, 4), M > 0.
        gt_classes: (M,) in 0..K-1.

    Returns:
        Of each point, over its A anchors and all objects, the largest IoU, and the largest score
        of its anchors for the class of that object; where nothing overlaps, for any class of the
        image's objects.
    """
    flat = boxes.flatten(0, 1)  # (P*A, 4)
    best = flat.new_full((len(flat),), -1.0)
    objects = torch.zeros_like(best, dtype=torch.int64)
    start = 0
    for some in box_chunks(gt_boxes, len(flat)):
        overlap, index = elementwise_iou(flat[None], some[:, None]).max(dim=0)  # (P*A,) both
        better = overlap > best
        best = torch.where(better, overlap, best)
        objects = torch.where(better, index + start, objects)
        start += len(some)
    overlaps, anchors = best.view(boxes.shape[:2]).max(dim=1)  # (P,) both
    points = torch.arange(len(boxes), device=boxes.device)
    objects = objects.view(boxes.shape[:2])[points, anchors]
    scores = logits.amax(dim=1).sigmoid()  # (P, K)
    of_object = scores[points, gt_classes[objects]]
    of_any = scores[:, gt_classes.unique()].amax(dim=1)
    return PointPredictions(
        boxes=boxes[points, anchors],
        overlaps=overlaps,
        objects=objects,
        scores=torch.where(overlaps > 0, of_object, of_any),
    )


@torch.no_grad()
def localization_scores(
    overlaps: Tensor, positive: Tensor | float, negative: Tensor | float
) -> Tensor:
    """Eq 1: 2 for an IoU of at least ``positive``, 0.4 up to ``negative``, 1.5 between.

    Args:
        overlaps: (P,).
        positive, negative: thresholds, numbers or (P,).

    Returns:
        (P,)
    """
    scores = torch.full_like(overlaps, BETWEEN)
    scores = scores.masked_fill(overlaps <= negative, NEGATIVE)
    return scores.masked_fill(overlaps >= positive, POSITIVE)


@torch.no_grad()
def classification_scores(scores: Tensor, part: float) -> Tensor:
    """Eq 2: 1.5 for the ``part`` of the points with the best class scores, else 1.

    Args:
        scores: (P,).
        part: in (0, 1]; of the points' number, rounded up.

    Returns:
        (P,)
    """
    found = torch.ones_like(scores)
    found[scores.topk(top_count(len(scores), part)).indices] = TOP_SCORE
    return found


@torch.no_grad()
def dual_task_importance(
    predictions: PointPredictions,
    *,
    cls_part: float = 0.025,
    positive: Tensor | float | None = 0.5,
    negative: Tensor | float = 0.4,
    tasks: str = "both",
    combine: str = "product",
) -> Tensor:
    """Dual-task importance evaluation (eqs 1 to 3): how much a point matters to a detector.

    Args:
        predictions: of a detector.
        cls_part: see :func:`classification_scores`.
        positive, negative: see :func:`localization_scores`; with ``positive=None`` the
            localisation score is the IoU itself (Table 4).
        tasks: "both", "cls" or "loc" (Table 3).
        combine: "product" (eq 3) or "sum" (text).

    Returns:
        (P,)
    """
    by_class = classification_scores(predictions.scores, cls_part)
    if tasks == "cls":
        return by_class
    by_box = predictions.overlaps
    if positive is not None:
        by_box = localization_scores(predictions.overlaps, positive, negative)
    if tasks == "loc":
        return by_box
    return by_class + by_box if combine == "sum" else by_class * by_box


@torch.no_grad()
def learning_dynamics(
    importance: Tensor,
    student_importance: Tensor,
    predictions: PointPredictions,
    *,
    gamma: float = 0.025,
    nms_thresh: float | None = 0.6,
    areas: str = "both",
    gamma_key: bool = False,
) -> Tensor:
    """Learning dynamics evaluation (eqs 4 to 7): the teacher's key, the student's weak areas.

    Args:
        importance: (P,), Score_T.
        student_importance: (P,), Score_S.
        predictions: of the teacher; its scores decide between points that are equal otherwise.
        gamma: part of the points that is weak at most.
        nms_thresh: IoU of NMS. A box that it keeps and those that it drops for it are an area, and
            the areas take turns (see :func:`in_turns`). None takes the points by their gain alone.
        areas: "both", "key" or "weak" (Table 5).
        gamma_key: key points are only the part ``gamma`` with the largest importance; the value
            of the others is 0.

    Returns:
        (P,), V_out.
    """
    count = top_count(len(importance), gamma)
    values = torch.ones_like(importance)
    if areas != "weak":
        values = importance.clone()  # eq 4
        if gamma_key:
            values[_ranked(importance, predictions.scores)[count:]] = 0
    if areas != "key":
        gain = importance - student_importance  # eq 5
        candidates = _ranked(gain, predictions.scores)
        candidates = candidates[gain[candidates] > 0]
        if nms_thresh is not None:
            candidates = candidates[in_turns(predictions.boxes[candidates], nms_thresh)]
        values[candidates[:count]] *= WEAK_SCORE  # eqs 6 and 7
    return values


@torch.no_grad()
def object_vicinity(
    points: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    *,
    width: float = 0.25,
    decreases: bool = True,
) -> Tensor:
    """Eq 9: V_info, 1 in an object, and from 1 to 0 in a ring around it.

    With d the distance of a point from the border of a box, and D = max(stride, ``width`` * the
    box's shorter side) that of the ring, it is 1 - d / D.

    Args:
        points: (P, 2), (x, y) of their centres.
        strides: (P,), of their levels.
        gt_boxes: (M, 4), may be empty.
        width: of the ring.
        decreases: False is d / D, as eq 9 is printed.

    Returns:
        (P,) in [0, 1]: the largest over the objects.
    """
    values = points.new_zeros(len(points))
    for boxes in box_chunks(gt_boxes, len(points)):
        low, high = boxes[:, None, :2], boxes[:, None, 2:]
        outside = torch.maximum(low - points, points - high).clamp(min=0)  # (M, P, 2)
        shorter = (boxes[:, 2:] - boxes[:, :2]).amin(dim=1)  # (M,)
        ring = torch.maximum(strides[None], width * shorter[:, None])  # (M, P)
        distance = outside.norm(dim=2) / ring  # (M, P)
        information = 1 - distance
        if not decreases:
            inside = distance == 0
            information = torch.where(inside, torch.ones_like(distance), distance)
            information = information * (distance <= 1)
        values = torch.maximum(values, information.amax(dim=0))
    return values


@torch.no_grad()
def feature_decoupling(values: Tensor, information: Tensor) -> Tensor:
    """Feature decoupling (eqs 10 and 11): the weights of the points in the loss.

    Args:
        values: (P,), V_out.
        information: (P,), V_info.

    Returns:
        (P,), M: V = V_out * V_info where that is high, 0.7 V where it is medium (below 1), and
        0.05 V where it is low (below 0.01).
    """
    values = values * information
    medium, low = values < MEDIUM_VALUE, values < LOW_VALUE
    factors = torch.ones_like(values).masked_fill(medium, MEDIUM_FACTOR)
    return values * factors.masked_fill(low, LOW_FACTOR)


def in_turns(boxes: Tensor, nms_thresh: float) -> Tensor:
    """The order in which ranked boxes are taken when the areas that NMS finds take turns.

    Args:
        boxes: (P, 4), the best first.
        nms_thresh: IoU; a box that NMS keeps and those that it drops for it are an area.

    Returns:
        (P,) indices: the best of each area, then the second best of each, and so on.
    """
    places = torch.arange(len(boxes), device=boxes.device)
    kept = nms(boxes, -places.to(boxes), nms_thresh)
    areas = torch.full_like(places, len(boxes))
    start = 0
    for some in box_chunks(boxes[kept], len(boxes)):
        near = elementwise_iou(boxes[None], some[:, None]) > nms_thresh  # (M, P)
        first = near.int().argmax(dim=0) + start
        areas = torch.where(near.any(dim=0), torch.minimum(areas, first), areas)
        start += len(some)
    areas[kept] = torch.arange(len(kept), device=boxes.device)
    by_area = areas.argsort(stable=True)
    first = torch.searchsorted(areas[by_area], areas[by_area])  # where its area begins
    turns = torch.empty_like(places)
    turns[by_area] = places - first
    return turns.argsort(stable=True)


def top_count(num_points: int, gamma: float) -> int:
    """The part ``gamma`` of ``num_points``, rounded up."""
    return math.ceil(round(gamma * num_points, 6))  # 0.025 * 40 is more than 1


def _ranked(first: Tensor, second: Tensor) -> Tensor:
    """(P,): indices by falling ``first``, and by falling ``second`` where that is equal."""
    order = second.argsort(descending=True, stable=True)
    return order[first[order].argsort(descending=True, stable=True)]
