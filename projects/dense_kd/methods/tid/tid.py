"""TID: "Task Integration Distillation for Object Detectors" (Su, Jian and Yu, arXiv
2404.01699)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Optional

import torch
from detectron2.structures import Instances
from torch import Tensor

from ...detectors.assignment.adaptive import nearest_anchors, usual_fit
from ...detectors.assignment.locations import box_centers, on_image
from ...detectors.base.dense import DenseDetector
from ...losses import elementwise_iou
from ...options import (
    check_choices,
    check_flags,
    check_not_negative,
    check_padding_multiple,
    check_positive,
    check_shares,
    check_unused,
    is_share,
)
from ...outputs import DensePass
from ..base import KDMethod, Needs, Step
from ..base.adapters import comparable_features, pyramid_adapters
from ..base.class_maps import ClassMap
from ..ld.valuable_region import box_chunks
from .task_integration import (
    PointPredictions,
    dual_task_importance,
    feature_decoupling,
    learning_dynamics,
    object_vicinity,
    point_predictions,
)

TASKS = ("both", "cls", "loc")
AREAS = ("both", "key", "weak")
LOC_SCORES = ("thresholds", "atss", "iou")
COMBINES = ("product", "sum")
VICINITIES = ("decreasing", "increasing")
NORMALIZATIONS = ("none", "teacher_variance")
ATSS_TOPK = 9
VARIANCE_FLOOR = 1e-12
"""Of features that are constant."""

_Thresholds = Optional[tuple[Tensor, Tensor]]


class PointValues(NamedTuple):
    """What TID makes of both detectors' predictions, each (N, P).

    Attributes:
        cls, loc: the teacher's task scores (eqs 2 and 1).
        importance, student_importance: of both tasks together (eq 3).
        key: the teacher's value (eq 4).
        weak: 1 where the student lags behind (eqs 5 and 6), else 0.
        weights: in the loss (eqs 7 to 11).
    """

    cls: Tensor
    loc: Tensor
    importance: Tensor
    student_importance: Tensor
    key: Tensor
    weak: Tensor
    weights: Tensor


class _Compared(NamedTuple):
    """The points of an image that ``keep`` (P,) has, as both detectors see them."""

    keep: Tensor
    teacher: PointPredictions
    thresholds: _Thresholds
    importance: tuple[Tensor, Tensor]  # the student's, the teacher's
    information: Tensor


class TID(KDMethod):
    """Features of the pyramid are imitated where both tasks, and what the student lacks, say so.

    With features F_s and F_t of C channels at the points p of the pyramids, a 1x1 convolution f
    per level (trained, and not part of the student), and weights M_p of the points,

        loss = weight / N * sum_images ( sum_p M_p * |F_t - f(F_s)|^2 / (C max(1, sum_p M_p)) )

    The weights come from what both detectors predict now, without gradient
    (``task_integration.py``): the task scores of each (eqs 1 to 3), where the teacher's are high
    and where the student's are lower (4 to 7), and the nearness of objects (8 to 11). Points in the
    padding and far from objects weigh nothing, so images without objects add nothing.

    There is no code, and the paper is not complete. It is read so (options in parentheses):

    - Classification and localisation score are multiplied, as in eq 3; the text says they are
      added (``combine``).
    - The thresholds of eq 1 are "the detector's", and detectors differ: 0.5 and 0.4 of
      the IoU of *predicted* boxes, those of RetinaNet's assigner (``loc_score``).
    - The best 2.5 % in eq 2 are of the points of all levels of an image, by their score for the
      class of the object that they overlap most, or for any class of the image's objects
      (``cls_part``).
    - With several anchors per location the largest IoU and the largest score count.
    - Key points (eq 4) are all, by the teacher's score, since the next equations need a value
      everywhere (``gamma_key``). Weak points (eq 5) are where the teacher's score exceeds the
      student's, by their difference, and where that is equal by the teacher's score. The paper
      has no number for gamma, nor how NMS keeps them from being "solely focused on hard and small
      samples": they are 2.5 % at most (``gamma``), and NMS of the teacher's boxes, regardless of
      their class, finds areas that take turns, the best point of each first (``nms_thresh``).
    - Eq 9 grows with the distance from an object, the text says that it falls; it falls
      (``vicinity``). The vicinity is as wide as a quarter of the object's shorter side, and at
      least one stride (``vicinity_width``); its distance is Euclidean.
    - Eq 12 has neither a norm nor factors for its three parts: the square, and those of eq 11.
    - The normaliser, the weight 2 and the convolution are ours. So the loss grows with the square
      of the teacher's features; ``normalize="teacher_variance"`` divides it by their variance. On
      detectors of the demo its gradient in the backbone is 95 to 560 times that of the detection
      losses, and 3 to 20 times with the variance, which the configs for COCO and VOC have.

    The normaliser is per image, so the loss does not depend on how a batch is split.

    Published for GFL (Table 1, R101 to R50: 40.0 to 42.0 AP, to R18: 28.2 to 29.4; Table 2, Pascal
    VOC: 76.4 to 78.5; Table 3, classification or localisation alone: 40.9; Table 4, the IoU as
    score: 40.9; Table 5, weak areas alone: 41.8, key areas alone: 41.6) and ATSS (40.5 to 41.5).

    In a training step the tensors of the loss take, at their peak, 2.6 times the memory of the maps
    that are compared (both pyramids, float32; gradients included), with nine anchors per location;
    with one it is 1.7. The weights of 500 objects in an image of 800 x 1344 take 133 MiB.
    """

    def __init__(
        self,
        *,
        weight: float = 2.0,
        tasks: str = "both",
        areas: str = "both",
        loc_score: str = "thresholds",
        positive_thresh: float = 0.5,
        negative_thresh: float = 0.4,
        combine: str = "product",
        cls_part: float = 0.025,
        gamma: float = 0.025,
        gamma_key: bool = False,
        nms_thresh: float | None = 0.6,
        vicinity: str = "decreasing",
        vicinity_width: float = 0.25,
        normalize: str = "none",
        padding_multiple: int | None = 32,
        class_map: ClassMap = None,
        warmup_iters: int = 0,
    ):
        """
        Args:
            weight: of the loss, above 0.
            tasks: "both", or "cls" or "loc" alone (Table 3).
            areas: "both", or "key" or "weak" alone (Table 5).
            loc_score: "thresholds": 2, 1.5 or 0.4, by ``positive_thresh`` and
                ``negative_thresh``; "atss": with those of ATSS, mean plus deviation of the IoU of
                the student's anchors near the object, and half of it; "iou": the IoU itself
                (Table 4).
            positive_thresh, negative_thresh: of the IoU.
            combine: "product" (eq 3) or "sum" (text).
            cls_part: part of an image's points whose class scores are high, in (0, 1] (eq 2).
            gamma: part of an image's points that is weak at most, in (0, 1] (eq 5).
            gamma_key: only the part ``gamma`` with the teacher's largest scores has a value (eq 4).
            nms_thresh: IoU above which two weak points are of one area; None takes the points of
                the largest differences, of whatever area.
            vicinity: "decreasing" (text) or "increasing" (eq 9) with the distance from an object.
            vicinity_width: in units of the object's shorter side.
            normalize: "none", or "teacher_variance": the loss of an image is divided by the mean
                variance of the channels of the teacher's pyramid, so that its scale does not
                matter.
            padding_multiple: where the padding begins, as for the assigner of ATSS and GFL.
            class_map: which classes correspond, where those of student and teacher differ, see
                :data:`ClassMap`. Objects that the teacher has no class for are left out.
            warmup_iters: see :class:`KDMethod`.

        Raises:
            ValueError: an option has a value that it may not have, or one that is changed has no
                effect beside the others.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_choices(
            ("tasks", tasks, TASKS),
            ("areas", areas, AREAS),
            ("loc_score", loc_score, LOC_SCORES),
            ("combine", combine, COMBINES),
            ("vicinity", vicinity, VICINITIES),
            ("normalize", normalize, NORMALIZATIONS),
        )
        check_positive(weight=weight)
        check_shares(positive_thresh=positive_thresh, negative_thresh=negative_thresh)
        check_not_negative(vicinity_width=vicinity_width)
        check_padding_multiple(padding_multiple)
        check_flags(gamma_key=gamma_key)
        for name, part in (("cls_part", cls_part), ("gamma", gamma)):
            if not is_share(part) or part == 0:
                raise ValueError(f"{name}={part}: expected a part of the points, in (0, 1]")
        if negative_thresh > positive_thresh:
            raise ValueError(
                f"negative_thresh={negative_thresh} and positive_thresh={positive_thresh}: "
                "expected 0 <= negative_thresh <= positive_thresh <= 1"
            )
        if nms_thresh is not None and not is_share(nms_thresh):
            raise ValueError(f"nms_thresh={nms_thresh}: expected an IoU in [0, 1], or None")
        thresholds = dict(positive_thresh=positive_thresh, negative_thresh=negative_thresh)
        if tasks == "cls":
            unused = dict(loc_score=loc_score, combine=combine, **thresholds)
            check_unused(TID, "tasks='cls'", **unused)
        if tasks == "loc":
            check_unused(TID, "tasks='loc'", cls_part=cls_part, combine=combine)
        if loc_score != "thresholds":
            check_unused(TID, f"loc_score={loc_score!r}", **thresholds)
        if areas == "weak":
            check_unused(TID, "areas='weak'", gamma_key=gamma_key)
        if areas == "key":
            check_unused(TID, "areas='key'", nms_thresh=nms_thresh)
            if not gamma_key:
                check_unused(TID, "areas='key' and gamma_key=False", gamma=gamma)
        self.needs = Needs(same_levels=True, same_classes=True, ground_truth=True)
        self.weight = weight
        self.tasks = tasks
        self.areas = areas
        self.loc_score = loc_score
        self.positive_thresh = positive_thresh
        self.negative_thresh = negative_thresh
        self.combine = combine
        self.cls_part = cls_part
        self.gamma = gamma
        self.gamma_key = gamma_key
        self.nms_thresh = nms_thresh
        self.vicinity = vicinity
        self.vicinity_width = vicinity_width
        self.normalize = normalize
        self.padding_multiple = padding_multiple
        self.class_map = class_map

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Make the adapters, between equal widths too."""
        super().prepare(student, teacher)
        self.adapters = pyramid_adapters(student, teacher, always=True)

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_feature``."""
        weights = self.weights(student, teacher, step.ground_truth)  # (N, P)
        divisors = weights.sum(dim=1).clamp(min=1) * teacher.features[0].shape[1]  # (N,)
        if self.normalize == "teacher_variance":
            divisors = divisors * self._variance(student, teacher)
        sizes = [feature[0, 0].numel() for feature in student.features]
        features = comparable_features(student, teacher, self.adapters)
        loss = weights.new_zeros(())
        for (ours, theirs), part in zip(features, weights.split(sizes, dim=1)):
            error = (theirs - ours).pow(2).sum(dim=1).flatten(1)  # (N, Hl*Wl)
            loss = loss + (part * error / divisors[:, None]).sum()  # eq 12
        return {"loss_feature": self.weight * loss / len(weights)}

    @torch.no_grad()
    def weights(
        self, student: DensePass, teacher: DensePass, ground_truth: list[Instances]
    ) -> Tensor:
        """(N, P): the weight of each point of the pyramid, ordered by level, row and column."""
        points = _points(student)  # (P, 2)
        weights = points.new_zeros(len(ground_truth), len(points))
        for image, compared in self._compared(student, teacher, ground_truth, points):
            values = self._learning(compared, self.areas)
            weights[image, compared.keep] = feature_decoupling(values, compared.information)
        return weights

    @torch.no_grad()
    def values(
        self, student: DensePass, teacher: DensePass, ground_truth: list[Instances]
    ) -> PointValues:
        """What the weights are made of, at each point as :meth:`weights` has them.

        0 in padding, and everywhere in an image without objects that both detectors know.
        """
        points = _points(student)
        found = points.new_zeros(len(PointValues._fields), len(ground_truth), len(points))
        for image, compared in self._compared(student, teacher, ground_truth, points):
            of_student, of_teacher = compared.importance
            weak = self._learning(compared, "weak") != 1
            values = self._learning(compared, self.areas)
            parts = PointValues(
                cls=self._importance(compared.teacher, compared.thresholds, "cls"),
                loc=self._importance(compared.teacher, compared.thresholds, "loc"),
                importance=of_teacher,
                student_importance=of_student,
                key=self._learning(compared, "key"),
                weak=weak.to(points),
                weights=feature_decoupling(values, compared.information),
            )
            found[:, image, compared.keep] = torch.stack(parts)
        return PointValues(*found)

    def _compared(
        self,
        student: DensePass,
        teacher: DensePass,
        ground_truth: list[Instances],
        points: Tensor,
    ) -> Iterator[tuple[int, _Compared]]:
        """Both detectors at the points of each image that has objects."""
        ours, theirs = self.comparable_logits(student, teacher)
        passes = ((student, ours), (teacher, theirs))
        strides = torch.cat(
            [
                points.new_full((len(priors) // student.num_anchors,), float(stride))
                for priors, stride in zip(student.priors, student.strides)
            ]
        )  # (P,)
        for image, truth in enumerate(ground_truth):
            gt_boxes, gt_classes = self._objects(truth)
            size = student.image_sizes[image]
            keep = self._on_image(student, size)  # (P,)
            if len(gt_boxes) == 0 or not keep.any():
                continue
            found = [
                point_predictions(
                    _at_points(logits, image, dense.num_anchors)[keep],
                    _at_points(dense.boxes, image, dense.num_anchors)[keep],
                    gt_boxes,
                    gt_classes,
                )
                for dense, logits in passes
            ]
            thresholds = self._thresholds(student, gt_boxes, size)
            of_student, of_teacher = (
                self._importance(predictions, thresholds, self.tasks) for predictions in found
            )
            information = object_vicinity(
                points[keep],
                strides[keep],
                gt_boxes,
                width=self.vicinity_width,
                decreases=self.vicinity == "decreasing",
            )
            importance = (of_student, of_teacher)
            yield image, _Compared(keep, found[1], thresholds, importance, information)

    def _importance(
        self, predictions: PointPredictions, thresholds: _Thresholds, tasks: str
    ) -> Tensor:
        return dual_task_importance(
            predictions,
            cls_part=self.cls_part,
            tasks=tasks,
            combine=self.combine,
            positive=None if thresholds is None else thresholds[0][predictions.objects],
            negative=0.0 if thresholds is None else thresholds[1][predictions.objects],
        )

    def _learning(self, compared: _Compared, areas: str) -> Tensor:
        of_student, of_teacher = compared.importance
        return learning_dynamics(
            of_teacher,
            of_student,
            compared.teacher,
            gamma=self.gamma,
            nms_thresh=self.nms_thresh,
            areas=areas,
            gamma_key=self.gamma_key,
        )

    @torch.no_grad()
    def _variance(self, student: DensePass, teacher: DensePass) -> Tensor:
        """(N,): the variance of the teacher's channels over the points of an image, their mean."""
        keep = torch.stack(
            [self._on_image(student, size) for size in student.image_sizes]
        )  # (N, P)
        levels = [feature.detach().float().flatten(2) for feature in teacher.features]
        masks = keep[:, None].split([level.shape[2] for level in levels], dim=2)
        count = keep.sum(dim=1).clamp(min=1)[:, None]  # (N, 1)
        mean = sum((mask * x).sum(dim=2) for x, mask in zip(levels, masks)) / count  # (N, C)
        squares = sum(
            (mask * (x - mean[:, :, None]).square()).sum(dim=2) for x, mask in zip(levels, masks)
        )  # (N, C)
        variance = (squares / count).mean(dim=1)
        return variance.clamp(min=VARIANCE_FLOOR)

    def _on_image(self, dense: DensePass, size: tuple[int, int]) -> Tensor:
        """(P,) bool: points whose cell is not in the padding of an image of ``size``."""
        return on_image(_locations(dense), size, self.padding_multiple)

    def _objects(self, truth: Instances) -> tuple[Tensor, Tensor]:
        """(M, 4) boxes and (M,) indices among the compared classes."""
        boxes, classes = truth.gt_boxes.tensor, truth.gt_classes
        if getattr(self, "student_classes", None) is None:
            return boxes, classes
        same = classes[:, None] == self.student_classes  # (M, K')
        known = same.any(dim=1)
        return boxes[known], same[known].int().argmax(dim=1)

    def _thresholds(
        self, student: DensePass, gt_boxes: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor] | None:
        """(M,) positive and (M,) negative threshold of each object, None without thresholds."""
        if self.loc_score == "iou":
            return None
        if self.loc_score == "thresholds":
            fixed = (self.positive_thresh, self.negative_thresh)
            positive, negative = (gt_boxes.new_full((len(gt_boxes),), x) for x in fixed)
            return positive, negative
        levels = [x[on_image([x], size, self.padding_multiple)] for x in student.priors]
        anchors = torch.cat(levels)  # (V, 4)
        fits = []
        for boxes in box_chunks(gt_boxes, len(anchors)):
            near = anchors[nearest_anchors(levels, boxes, ATSS_TOPK)]  # (M, candidates, 4)
            fits.append(usual_fit(elementwise_iou(near, boxes[:, None]))[:, 0])
        # A single anchor has no deviation.
        positive = torch.cat(fits).nan_to_num(nan=self.positive_thresh)
        return positive, 0.5 * positive


def _points(dense: DensePass) -> Tensor:
    """(P, 2): the points of the pyramid, ordered by level, row and column."""
    return box_centers(torch.cat(_locations(dense)))


def _locations(dense: DensePass) -> list[Tensor]:
    """L x (Hl*Wl, 4): the first prior of each location."""
    return [priors[:: dense.num_anchors] for priors in dense.priors]


def _at_points(levels: list[Tensor], image: int, num_anchors: int) -> Tensor:
    """(P, A, ...) of one image, of L x (N, Hl*Wl*A, ...)."""
    return torch.cat([level[image] for level in levels]).unflatten(0, (-1, num_anchors))
