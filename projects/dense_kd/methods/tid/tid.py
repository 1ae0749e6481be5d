"""TID: "Task Integration Distillation for Object Detectors" (Su, Jian and Yu, arXiv
2404.01699)."""

from __future__ import annotations

from typing import NamedTuple, Union

import torch
from detectron2.structures import Instances
from torch import Tensor

from ...detectors.assignment.locations import box_centers, num_on_image, on_images
from ...detectors.base.dense import DenseDetector
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
from ..base.adapters import pyramid_adapters, squared_errors
from ..base.class_maps import ClassMap
from .objects import stacked_objects, usual_overlaps
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
VARIANCE_FLOOR = 1e-12
"""Of features that are constant."""

_Thresholds = tuple[Union[Tensor, float, None], Union[Tensor, float]]
"""The positive and the negative one; without a positive there are none."""


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
    """The points of a batch as both detectors see them.

    Attributes:
        valid: (N, P) bool, the points that are not in the padding.
        num_points: N, how many these are.
        has_objects: (N, 1) bool, images with objects that both detectors know.
        teacher: (N, P) its predictions.
        thresholds: of the objects.
        importance: (N, P) each, the student's and the teacher's.
        information: (N, P).
    """

    valid: Tensor
    num_points: list[int]
    has_objects: Tensor
    teacher: PointPredictions
    thresholds: _Thresholds
    importance: tuple[Tensor, Tensor]
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

    In a training step the tensors of the loss take, at their peak, 2.5 times the memory of the maps
    that are compared (both pyramids, float32; gradients included), with nine anchors per location;
    with one it is 1.0. The weights of 500 objects in an image of 800 x 1344 take 133 MiB.
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
        shares = weights / (divisors * len(weights))[:, None]
        loss = (shares * squared_errors(student, teacher, self.adapters)).sum()  # eq 12
        return {"loss_feature": self.weight * loss}

    @torch.no_grad()
    def weights(
        self, student: DensePass, teacher: DensePass, ground_truth: list[Instances]
    ) -> Tensor:
        """(N, P): the weight of each point of the pyramid, ordered by level, row and column."""
        compared = self._compared(student, teacher, ground_truth)
        if compared is None:
            return self._nothing(student)
        values = self._learning(compared, self.areas, ground_truth)
        return feature_decoupling(values, compared.information)

    @torch.no_grad()
    def values(
        self, student: DensePass, teacher: DensePass, ground_truth: list[Instances]
    ) -> PointValues:
        """What the weights are made of, at each point as :meth:`weights` has them.

        0 in padding, and everywhere in an image without objects that both detectors know.
        """
        compared = self._compared(student, teacher, ground_truth)
        if compared is None:
            return PointValues(*[self._nothing(student)] * len(PointValues._fields))
        of_student, of_teacher = compared.importance
        weak = self._learning(compared, "weak", ground_truth) > 1
        values = self._learning(compared, self.areas, ground_truth)
        parts = PointValues(
            cls=self._importance(compared.teacher, compared.thresholds, "cls", compared.num_points),
            loc=self._importance(compared.teacher, compared.thresholds, "loc", compared.num_points),
            importance=of_teacher,
            student_importance=of_student,
            key=self._learning(compared, "key", ground_truth),
            weak=weak.to(values),
            weights=feature_decoupling(values, compared.information),
        )
        counts = compared.valid & compared.has_objects
        return PointValues(*(torch.where(counts, part, 0.0) for part in parts))

    def _nothing(self, student: DensePass) -> Tensor:
        points = sum(len(level) for level in student.cells)
        return student.priors[0].new_zeros(len(student.image_sizes), points)

    def _compared(
        self, student: DensePass, teacher: DensePass, ground_truth: list[Instances]
    ) -> _Compared | None:
        """Both detectors at the points of a batch; None without any object."""
        if not any(len(truth) for truth in ground_truth):
            return None
        cells = student.cells
        valid = on_images(cells, student.image_sizes, self.padding_multiple)  # (N, P)
        maps = [(feature.shape[-2], feature.shape[-1]) for feature in student.features]
        num_points = [
            num_on_image(maps, student.strides, size, self.padding_multiple)
            for size in student.image_sizes
        ]
        known = getattr(self, "student_classes", None)
        gt_boxes, gt_classes = stacked_objects(ground_truth, known)  # (N, M, 4) and (N, M)
        found = []
        levels = self.comparable_levels(student, teacher)
        for dense, logits in zip((student, teacher), levels):
            predictions = point_predictions(
                _at_points(logits, dense.num_anchors),
                dense.all_boxes.detach().unflatten(1, (-1, dense.num_anchors)),
                gt_boxes,
                gt_classes,
            )
            predictions.scores = torch.where(valid, predictions.scores, -1.0)
            found.append(predictions)
        thresholds = self._thresholds(student, gt_boxes, valid)
        of_student, of_teacher = (
            self._importance(predictions, thresholds, self.tasks, num_points)
            for predictions in found
        )
        strides = torch.cat([
            torch.full((len(level),), float(stride), device=valid.device)
            for level, stride in zip(cells, student.strides)
        ])  # fmt: skip
        information = object_vicinity(
            box_centers(torch.cat(cells)),
            strides,
            gt_boxes,
            width=self.vicinity_width,
            decreases=self.vicinity == "decreasing",
        )
        return _Compared(
            valid=valid,
            num_points=num_points,
            has_objects=(gt_classes >= 0).any(dim=1, keepdim=True),
            teacher=found[1],
            thresholds=thresholds,
            importance=(of_student, of_teacher),
            information=information * valid,
        )

    def _importance(
        self,
        predictions: PointPredictions,
        thresholds: _Thresholds,
        tasks: str,
        num_points: list[int],
    ) -> Tensor:
        positive, negative = thresholds
        if isinstance(positive, Tensor):
            positive = positive.gather(-1, predictions.objects)
        if isinstance(negative, Tensor):
            negative = negative.gather(-1, predictions.objects)
        return dual_task_importance(
            predictions,
            cls_part=self.cls_part,
            tasks=tasks,
            combine=self.combine,
            positive=positive,
            negative=negative,
            num_points=num_points,
        )

    def _learning(self, compared: _Compared, areas: str, ground_truth: list[Instances]) -> Tensor:
        """(N, P): V_out; in images without objects 0."""
        images = []
        for image, truth in enumerate(ground_truth):
            of_student, of_teacher = (x[image] for x in compared.importance)
            if len(truth) == 0 or compared.num_points[image] == 0:
                images.append(torch.zeros_like(of_teacher))
                continue
            values = learning_dynamics(
                of_teacher,
                of_student,
                compared.teacher.of_image(image),
                gamma=self.gamma,
                nms_thresh=self.nms_thresh,
                areas=areas,
                gamma_key=self.gamma_key,
                valid=compared.valid[image],
                num_points=compared.num_points[image],
            )
            images.append(values)
        return torch.stack(images)

    @torch.no_grad()
    def _variance(self, student: DensePass, teacher: DensePass) -> Tensor:
        """(N,): the variance of the teacher's channels over the points of an image, their mean."""
        keep = on_images(student.cells, student.image_sizes, self.padding_multiple)  # (N, P)
        levels = [feature.detach().float().flatten(2) for feature in teacher.features]
        # What a point counts in a mean, (N, Hl*Wl, 1)
        shares = keep / keep.sum(dim=1, keepdim=True).clamp(min=1)
        masks = shares[..., None].split([level.shape[2] for level in levels], dim=1)
        means = [level @ mask for level, mask in zip(levels, masks)]  # (N, C, 1)
        mean = torch.stack(means).sum(dim=0)
        squares = [(level - mean).square() @ mask for level, mask in zip(levels, masks)]
        variance = torch.stack(squares).sum(dim=0).mean(dim=(1, 2))  # (N,)
        return variance.clamp(min=VARIANCE_FLOOR)

    def _thresholds(self, student: DensePass, gt_boxes: Tensor, valid: Tensor) -> _Thresholds:
        """Those of each object (..., M), or of all alike.

        Args:
            student: whose anchors count.
            gt_boxes: (..., M, 4).
            valid: (..., P) bool, the locations that count.
        """
        if self.loc_score == "iou":
            return None, 0.0
        if self.loc_score == "thresholds":
            return self.positive_thresh, self.negative_thresh
        positive = usual_overlaps(student, gt_boxes, valid)
        # A single anchor has no deviation.
        positive = positive.nan_to_num(nan=self.positive_thresh)
        return positive, 0.5 * positive


def _at_points(levels: list[Tensor], num_anchors: int) -> Tensor:
    """(N, P, 1, K): of L x (N, Hl*Wl*A, K) logits, the largest of the anchors of each point."""
    if num_anchors > 1:
        levels = [level.unflatten(1, (-1, num_anchors)).amax(dim=2) for level in levels]
    return torch.cat(levels, dim=1).detach()[:, :, None]
