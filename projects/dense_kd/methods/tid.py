"""TID: "Task Integration Distillation for Object Detectors" (Su, Jian and Yu, arXiv
2404.01699)."""

from __future__ import annotations

import torch
from detectron2.structures import Instances
from torch import Tensor

from ..detectors.adaptive_assigners import nearest_anchors, usual_fit
from ..detectors.assigners import box_centers, not_in_padding
from ..detectors.dense import DenseDetector
from ..losses import elementwise_iou
from ..outputs import DensePass
from .adapters import comparable_features, pyramid_adapters
from .base import KDMethod, Needs, Step
from .class_maps import ClassMap
from .options import check_choices, check_positive
from .task_integration import (
    dual_task_importance,
    feature_decoupling,
    learning_dynamics,
    object_vicinity,
    point_predictions,
)
from .valuable_region import box_chunks

TASKS = ("both", "cls", "loc")
AREAS = ("both", "key", "weak")
LOC_SCORES = ("thresholds", "atss", "iou")
COMBINES = ("product", "sum")
VICINITIES = ("decreasing", "increasing")
ATSS_TOPK = 9


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
      class of the object that they overlap most, or for any class of the image's objects.
    - With several anchors per location the largest IoU and the largest score count.
    - Key points (eq 4) are all, by the teacher's score, since the next equations need a value
      everywhere (``gamma_key``). Weak points (eq 5) are where the teacher's score exceeds the
      student's: those of the largest difference, and of these those of the teacher's best scores,
      thinned by NMS of the teacher's boxes regardless of their class, 2.5 % at most (``gamma``,
      ``nms_thresh``).
    - Eq 9 grows with the distance from an object, the text says that it falls; it falls
      (``vicinity``). The vicinity is as wide as a quarter of the object's shorter side, and at
      least one stride (``vicinity_width``); its distance is Euclidean.
    - Eq 12 has neither a norm nor factors for its three parts: the square, and those of eq 11.
    - The normaliser, the weight 2 and the convolution are ours.

    The normaliser is per image, so the loss does not depend on how a batch is split.

    Published for GFL (R101 to R50: 40.0 to 42.0 AP; classification or localisation alone 40.9;
    weak areas alone 41.8, key areas alone 41.6; the IoU as score 40.9) and ATSS (40.5 to 41.5).

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
        gamma: float = 0.025,
        gamma_key: bool = False,
        nms_thresh: float | None = 0.6,
        vicinity: str = "decreasing",
        vicinity_width: float = 0.25,
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
            gamma: part of an image's points that is best, and that is weak, in (0, 1].
            gamma_key: only the part ``gamma`` with the teacher's largest scores has a value.
            nms_thresh: of weak points; None keeps all.
            vicinity: "decreasing" (text) or "increasing" (eq 9) with the distance from an object.
            vicinity_width: in units of the object's shorter side.
            padding_multiple: where the padding begins, as for the assigner of ATSS and GFL.
            class_map: which classes correspond, where those of student and teacher differ, see
                :data:`ClassMap`. Objects that the teacher has no class for are left out.
            warmup_iters: see :class:`KDMethod`.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_choices(
            ("tasks", tasks, TASKS),
            ("areas", areas, AREAS),
            ("loc_score", loc_score, LOC_SCORES),
            ("combine", combine, COMBINES),
            ("vicinity", vicinity, VICINITIES),
        )
        check_positive(weight=weight)
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma={gamma}: expected a part of the points, in (0, 1]")
        if not 0 <= negative_thresh <= positive_thresh <= 1:
            raise ValueError(
                f"negative_thresh={negative_thresh} and positive_thresh={positive_thresh}: "
                "expected 0 <= negative_thresh <= positive_thresh <= 1"
            )
        if nms_thresh is not None and not 0 <= nms_thresh <= 1:
            raise ValueError(f"nms_thresh={nms_thresh}: expected an IoU in [0, 1], or None")
        if vicinity_width < 0:
            raise ValueError(f"vicinity_width={vicinity_width}: expected at least 0")
        self.needs = Needs(same_levels=True, same_classes=True)
        self.weight = weight
        self.tasks = tasks
        self.areas = areas
        self.loc_score = loc_score
        self.positive_thresh = positive_thresh
        self.negative_thresh = negative_thresh
        self.combine = combine
        self.gamma = gamma
        self.gamma_key = gamma_key
        self.nms_thresh = nms_thresh
        self.vicinity = vicinity
        self.vicinity_width = vicinity_width
        self.padding_multiple = padding_multiple
        self.class_map = class_map

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        super().prepare(student, teacher)
        self.adapters = pyramid_adapters(student, teacher, always=True)

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_feature``."""
        weights = self.weights(student, teacher, step.ground_truth)  # (N, P)
        divisors = weights.sum(dim=1).clamp(min=1) * teacher.features[0].shape[1]  # (N,)
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
        ours, theirs = self.comparable_logits(student, teacher)
        passes = ((student, ours), (teacher, theirs))
        points = box_centers(torch.cat(student.priors))[:: student.num_anchors]  # (P, 2)
        strides = torch.cat(
            [
                points.new_full((len(priors) // student.num_anchors,), float(stride))
                for priors, stride in zip(student.priors, student.strides)
            ]
        )  # (P,)
        weights = points.new_zeros(len(ground_truth), len(points))
        for image, truth in enumerate(ground_truth):
            gt_boxes, gt_classes = self._objects(truth)
            size = student.image_sizes[image]
            keep = not_in_padding(points.repeat(1, 2), size, self.padding_multiple)  # (P,)
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
            importance = [
                dual_task_importance(
                    predictions,
                    gamma=self.gamma,
                    tasks=self.tasks,
                    combine=self.combine,
                    positive=None if thresholds is None else thresholds[0][predictions.objects],
                    negative=0.0 if thresholds is None else thresholds[1][predictions.objects],
                )
                for predictions in found
            ]
            values = learning_dynamics(
                importance[1],
                importance[0],
                found[1],
                gamma=self.gamma,
                nms_thresh=self.nms_thresh,
                areas=self.areas,
                gamma_key=self.gamma_key,
            )
            information = object_vicinity(
                points[keep],
                strides[keep],
                gt_boxes,
                width=self.vicinity_width,
                decreases=self.vicinity == "decreasing",
            )
            weights[image, keep] = feature_decoupling(values, information)
        return weights

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
        levels = [x[not_in_padding(x, size, self.padding_multiple)] for x in student.priors]
        anchors = torch.cat(levels)  # (V, 4)
        fits = []
        for boxes in box_chunks(gt_boxes, len(anchors)):
            near = anchors[nearest_anchors(levels, boxes, ATSS_TOPK)]  # (M, candidates, 4)
            fits.append(usual_fit(elementwise_iou(near, boxes[:, None]))[:, 0])
        # A single anchor has no deviation.
        positive = torch.cat(fits).nan_to_num(nan=self.positive_thresh)
        return positive, 0.5 * positive


def _at_points(levels: list[Tensor], image: int, num_anchors: int) -> Tensor:
    """(P, A, ...) of one image, of L x (N, Hl*Wl*A, ...)."""
    return torch.cat([level[image] for level in levels]).unflatten(0, (-1, num_anchors))
