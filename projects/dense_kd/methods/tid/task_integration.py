"""The three modules of TID: which points of the pyramid matter how much.

Su, Jian and Yu, "Task Integration Distillation for Object Detectors", arXiv 2404.01699.

P are the points of an image (cells of all levels of the pyramid), in the order of the levels; where
shapes begin with "...", that is nothing, or images. No function has a gradient. What the paper
leaves open, and how it is read here, see :class:`.tid.TID`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from ...losses import elementwise_iou, rows_of_sum
from ..base.objects import box_chunks
from .objects import ELSEWHERE

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
        boxes: (..., P, 4), at each point the predicted box that overlaps an object most.
        overlaps: (..., P), its IoU with that object.
        objects: (..., P) int64, the object's index; 0 where nothing overlaps.
        scores: (..., P) in [0, 1], the class score for that object.
    """

    boxes: Tensor
    overlaps: Tensor
    objects: Tensor
    scores: Tensor

    def of_image(self, image: int) -> PointPredictions:
        """Those of one image of several."""
        return PointPredictions(
            self.boxes[image], self.overlaps[image], self.objects[image], self.scores[image]
        )


@torch.no_grad()
def point_predictions(
    logits: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_classes: Tensor
) -> PointPredictions:
    """Match the predictions of each point with the objects.

    Args:
        logits: (..., P, A, K), class logits, or (..., P, 1, K), the largest of the anchors.
        boxes: (..., P, A, 4), predicted.
        gt_boxes: (..., M, 4), M > 0.
        gt_classes: (..., M) in 0..K-1, or -1 for what is no object and overlaps nothing.

    Returns:
        Of each point, over its A anchors and all objects, the largest IoU, and the largest score
        of its anchors for the class of that object; where nothing overlaps, for any class of the
        image's objects.
    """
    flat = boxes.flatten(-3, -2)  # (..., P*A, 4)
    best = torch.full_like(flat[..., 0], -1.0)
    objects = torch.zeros_like(best, dtype=torch.int64)
    start = 0
    for some in box_chunks(gt_boxes, best.numel()):
        overlap, index = elementwise_iou(flat[..., None, :, :], some[..., None, :]).max(dim=-2)
        better = overlap > best  # (..., P*A)
        best = torch.where(better, overlap, best)
        objects = torch.where(better, index + start, objects)
        start += some.shape[-2]
    overlaps, anchors = best.view(boxes.shape[:-1]).max(dim=-1, keepdim=True)  # (..., P, 1) both
    objects = objects.view(boxes.shape[:-1]).gather(-1, anchors)[..., 0]
    best_boxes = boxes.gather(-2, anchors[..., None].expand(*anchors.shape, 4))[..., 0, :]
    logits = logits.amax(dim=-2)  # (..., P, K)
    of_object = logits.gather(-1, gt_classes.gather(-1, objects).clamp(min=0)[..., None])[..., 0]
    classes = torch.arange(logits.shape[-1], device=logits.device)
    is_there = (gt_classes[..., None] == classes).any(dim=-2, keepdim=True)  # (..., 1, K)
    of_any = logits.masked_fill(~is_there, -torch.inf).amax(dim=-1)
    overlaps = overlaps[..., 0]
    return PointPredictions(
        boxes=best_boxes,
        overlaps=overlaps,
        objects=objects,
        scores=torch.where(overlaps > 0, of_object, of_any).sigmoid(),
    )


@torch.no_grad()
def localization_scores(
    overlaps: Tensor, positive: Tensor | float, negative: Tensor | float
) -> Tensor:
    """Eq 1: 2 for an IoU of at least ``positive``, 0.4 up to ``negative``, 1.5 between.

    Args:
        overlaps: (..., P).
        positive, negative: thresholds, numbers or (..., P).

    Returns:
        (..., P)
    """
    scores = torch.full_like(overlaps, BETWEEN)
    scores = scores.masked_fill(overlaps <= negative, NEGATIVE)
    return scores.masked_fill(overlaps >= positive, POSITIVE)


@torch.no_grad()
def classification_scores(
    scores: Tensor, part: float, num_points: list[int] | None = None
) -> Tensor:
    """Eq 2: 1.5 for the ``part`` of the points with the best class scores, else 1.

    Args:
        scores: (..., P).
        part: in (0, 1]; of the points' number, rounded up.
        num_points: of each image of (N, P) scores, the number of its points; the others have
            smaller scores than these. P by default.

    Returns:
        (..., P)
    """
    if num_points is None:
        counts = [top_count(scores.shape[-1], part)]
    else:
        counts = [top_count(number, part) for number in num_points]
    best = scores.topk(max(counts), dim=-1).indices
    found = torch.ones_like(scores)
    if len(set(counts)) == 1:
        return found.scatter_(-1, best, TOP_SCORE)
    for of_image, indices, count in zip(found, best, counts):
        of_image[indices[:count]] = TOP_SCORE
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
    num_points: list[int] | None = None,
) -> Tensor:
    """Dual-task importance evaluation (eqs 1 to 3): how much a point matters to a detector.

    Args:
        predictions: of a detector.
        cls_part, num_points: see :func:`classification_scores`.
        positive, negative: see :func:`localization_scores`; with ``positive=None`` the
            localisation score is the IoU itself (Table 4).
        tasks: "both", "cls" or "loc" (Table 3).
        combine: "product" (eq 3) or "sum" (text).

    Returns:
        (..., P)
    """
    if tasks != "loc":
        by_class = classification_scores(predictions.scores, cls_part, num_points)
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
    valid: Tensor | None = None,
    num_points: int | None = None,
) -> Tensor:
    """Learning dynamics evaluation (eqs 4 to 7) of an image: the teacher's key, the student's weak
    areas.

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
        valid: (P,) bool, the points that count; None is all. The others' values mean nothing.
        num_points: how many these are.

    Returns:
        (P,), V_out.
    """
    count = top_count(len(importance) if num_points is None else num_points, gamma)
    gain = importance - student_importance  # eq 5
    if valid is not None:
        importance, gain = torch.where(valid, torch.stack((importance, gain)), -1.0)
    values = torch.ones_like(importance)
    if areas != "weak":
        values = importance.clone()  # eq 4
        if gamma_key:
            values[_ranked(importance, predictions.scores)[count:]] = 0
    if areas != "key":
        candidates = _ranked(gain, predictions.scores)
        candidates = candidates[rows_of_sum(gain[candidates])]
        if nms_thresh is not None:
            boxes, are_weak = predictions.boxes[candidates], gain[candidates] > 0
            candidates = candidates[first_in_turns(boxes, are_weak, nms_thresh, count)]
        chosen = candidates[:count]
        values[chosen] *= torch.where(gain[chosen] > 0, WEAK_SCORE, 1.0)  # eqs 6 and 7
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
        gt_boxes: (..., M, 4), may be empty.
        width: of the ring.
        decreases: False is d / D, as eq 9 is printed.

    Returns:
        (..., P) in [0, 1]: the largest over the objects.
    """
    values = points.new_zeros(*gt_boxes.shape[:-2], len(points))
    for boxes in box_chunks(gt_boxes, values.numel()):
        low, high = boxes[..., None, :2], boxes[..., None, 2:]
        outside = torch.maximum(low - points, points - high).clamp(min=0)  # (..., M, P, 2)
        shorter = (boxes[..., 2:] - boxes[..., :2]).amin(dim=-1)  # (..., M)
        ring = torch.maximum(strides, width * shorter[..., None])  # (..., M, P)
        distance = outside.norm(dim=-1) / ring  # (..., M, P)
        information = 1 - distance
        if not decreases:
            inside = distance == 0
            information = torch.where(inside, torch.ones_like(distance), distance)
            information = information * (distance <= 1)
        values = torch.maximum(values, information.amax(dim=-2))
    return values


@torch.no_grad()
def feature_decoupling(values: Tensor, information: Tensor) -> Tensor:
    """Feature decoupling (eqs 10 and 11): the weights of the points in the loss.

    Args:
        values: (..., P), V_out.
        information: (..., P), V_info.

    Returns:
        (..., P), M: V = V_out * V_info where that is high, 0.7 V where it is medium (below 1), and
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
    return _in_turns(boxes, _suppress(boxes, nms_thresh), nms_thresh)


def first_in_turns(boxes: Tensor, wanted: Tensor, nms_thresh: float, count: int) -> Tensor:
    """The first ``count`` of those boxes that are wanted, in the order of :func:`in_turns`.

    It waits once for a GPU, for the number of areas: if there are enough, each gives its best.

    Args:
        boxes: (P, 4), the best first.
        wanted: (P,) bool, True before False.
        nms_thresh: IoU.
        count: how many.

    Returns:
        at most ``count`` indices; behind those of all wanted boxes others may follow.
    """
    count = min(count, len(boxes))
    # One more area, the last, has whatever is not wanted, and never is without a box.
    elsewhere = boxes.new_full((1, 4), ELSEWHERE)
    elsewhere[:, :2] *= 2
    boxes = torch.cat((torch.where(wanted[:, None], boxes, elsewhere), elsewhere))
    kept = _suppress(boxes, nms_thresh)
    if len(kept) > count:
        return kept[:count]
    order = _in_turns(boxes, kept, nms_thresh)
    wanted = F.pad(wanted, (0, 1))
    return order[wanted[order].byte().argsort(descending=True, stable=True)][:count]


def _suppress(boxes: Tensor, nms_thresh: float) -> Tensor:
    """Indices of the (P, 4) boxes, the best first, that NMS keeps."""
    places = torch.arange(len(boxes), device=boxes.device)
    return nms(boxes, -places.to(boxes), nms_thresh)


def _in_turns(boxes: Tensor, kept: Tensor, nms_thresh: float) -> Tensor:
    """See :func:`in_turns`; ``kept`` are those that NMS keeps."""
    places = torch.arange(len(boxes), device=boxes.device)
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
