"""Plain knowledge distillation: the student mimics the predictions of the teacher.

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, on a dense detector: the
baseline "KD" of CrossKD (Wang et al., CVPR 2024, Table 7). What CrossKD's Table 3 calls prediction
mimicking, and what BCKD (Yang et al., ICCV 2023, Table 3) is compared with, is LD.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..detectors.base.dense import DenseDetector
from ..losses import binary_divergence, elementwise_giou, kl_divergence, sum_of
from ..options import check_choices, check_positive, check_unused, check_weights
from ..outputs import DensePass
from .base import KDMethod, Needs, Step
from .base.batch_size import growth_warning
from .base.checks import same_code
from .base.class_maps import ClassMap

CLS_LOSSES = ("binary", "softmax")
LOC_LOSSES = ("giou", "l1", "kl")
REGIONS = ("all", "positives")
NORMALIZERS = ("positives", "none")
ANCHORS = ("same", "best")


class KD(KDMethod):
    """Divergence of class scores, and distance of boxes, prediction by prediction.

    With logits s_i and t_i of student and teacher, temperature T, and n what the detector divides
    its class loss by:

        loss_cls = cls_weight / n * sum_i w_i * C_i
        loss_loc = loc_weight / n * sum_i w_i * D_i

        C_i = T^2 * sum_k KL(sig(t_ik / T) || sig(s_ik / T))            cls_loss="binary"
              T^2 * KL(softmax(t_i / T) || softmax(s_i / T))            cls_loss="softmax"
        D_i = 1 - GIoU of the boxes                                     loc_loss="giou"
              mean over the four codes of their absolute difference     loc_loss="l1"
              mean over the four sides e of T^2 * KL(softmax(t_ie / T) || softmax(s_ie / T)),
              of the distributions over distances                       loc_loss="kl"

    i runs over all predictions that the student's assigner does not ignore, with w_i the best
    class score of the teacher, or with ``region="positives"`` over the positives with w_i = 1. The
    weights carry no gradient.

    "binary" treats classes as the detectors do, each as a question of its own; it is the binary
    cross-entropy with the teacher's scores, minus their entropy. "softmax" is the protocol of
    classification; it does not see a constant that is added to all logits of a prediction, which
    is the inconsistency that BCKD is about.

    The papers do not print the losses of their baselines: region, weights and normaliser
    are ours, chosen as those of BCKD and CrossKD, so that rows of a table differ in the
    losses. The normaliser is the detector's, synchronised where that is; where it is not, the loss
    depends on how a batch is split over processes, and with ``normalize="none"`` it grows with the
    number of images per process, which the run says once.

    With ``anchors="best"`` a teacher with several anchors per location, or with other anchors, can
    be mimicked by a student with one prediction per location: it mimics the teacher's anchor that
    has the best class score there (also ours; CrossKD's Table 7 has such pairs).

    In a training step the tensors of the losses take, at their peak, 3.8 times the memory of the
    predictions that are compared (logits and boxes of student and teacher, float32; gradients
    included) with 80 classes and a temperature; with T = 1 it is 2.9.
    """

    def __init__(
        self,
        *,
        cls_weight: float = 1.0,
        loc_weight: float = 1.0,
        cls_loss: str = "binary",
        loc_loss: str = "giou",
        temperature: float = 1.0,
        region: str = "all",
        normalize: str = "positives",
        anchors: str = "same",
        class_map: ClassMap = None,
        warmup_iters: int = 0,
    ):
        """
        Args:
            cls_weight, loc_weight: of the terms; 0 leaves a term out.
            cls_loss: "binary" or "softmax".
            loc_loss: "giou", "l1" (of boxes coded alike) or "kl" (of distributions).
            temperature: of the classes, and of the distributions with ``loc_loss="kl"``.
            region: "all" or "positives".
            normalize: "positives" or "none", as for :class:`.bckd.BCKD`.
            anchors: "same" or "best".
            class_map: which classes correspond, where those of student and teacher differ, see
                :data:`ClassMap`.
            warmup_iters: see :class:`KDMethod`.

        Raises:
            ValueError: an option has a value that it may not have, or one that is changed has no
                effect beside the others.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_choices(
            ("cls_loss", cls_loss, CLS_LOSSES),
            ("loc_loss", loc_loss, LOC_LOSSES),
            ("region", region, REGIONS),
            ("normalize", normalize, NORMALIZERS),
            ("anchors", anchors, ANCHORS),
        )
        if anchors == "best" and loc_weight > 0 and loc_loss != "giou":
            raise ValueError(
                f"anchors='best' with loc_loss={loc_loss!r}: codes of different anchors cannot be "
                "compared, boxes can; set loc_loss='giou'"
            )
        check_positive(temperature=temperature)
        check_weights(cls_weight=cls_weight, loc_weight=loc_weight)
        if cls_weight == 0:
            check_unused(KD, "cls_weight=0", cls_loss=cls_loss)
            if loc_loss != "kl":
                because = f"cls_weight=0 and loc_loss={loc_loss!r}"
                check_unused(KD, because, temperature=temperature)
        if loc_weight == 0:
            check_unused(KD, "loc_weight=0", loc_loss=loc_loss)
        self.needs = Needs(
            same_priors=anchors == "same",
            same_classes=True,
            several_classes=cls_weight > 0 and cls_loss == "softmax",
            distribution=loc_weight > 0 and loc_loss == "kl",
            ground_truth=True,
            features=False,
        )
        self.cls_weight = cls_weight
        self.loc_weight = loc_weight
        self.cls_loss = cls_loss
        self.loc_loss = loc_loss
        self.temperature = temperature
        self.region = region
        self.normalize = normalize
        self.anchors = anchors
        self.class_map = class_map

    def check(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Also that locations and codes of boxes agree, where the options compare them."""
        super().check(student, teacher)
        if self.anchors == "best":
            if student.strides != teacher.strides:
                raise ValueError(
                    "it compares predictions location by location, but the student has level "
                    f"strides {student.strides} and the teacher {teacher.strides}"
                )
            if student.num_anchors != 1:
                raise ValueError(
                    f"anchors='best', but the student has {student.num_anchors} anchors per "
                    "location, expected 1"
                )
        # Codes below 0 and above the logarithm of 1000 / 16 tell activations and clamps apart.
        codes = torch.tensor([[0.2, 0.4, 0.6, 0.8], [-0.5, -0.25, -30.0, 30.0]])
        if self.loc_weight > 0 and self.loc_loss == "l1" and not same_code(student, teacher, codes):
            raise ValueError(
                "loc_loss='l1' compares codes of boxes, and student and teacher decode equal codes "
                "to different boxes; give both an equal box2box_transform, or set loc_loss='giou'"
            )

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_cls`` and ``loss_loc``, those of them whose weight is not 0."""
        targets = step.targets
        only_positives = self.region == "positives"
        logits, teacher_logits = self.comparable_logits(student, teacher)  # (N, R, K)
        chosen = None
        if self.anchors == "best":
            chosen = _best_anchors(teacher_logits, teacher.num_anchors)  # (N, R)

        def compared(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
            """(N, R, ...) both, or (P, ...) those of the positives."""
            theirs = theirs.detach() if chosen is None else _gather(theirs.detach(), chosen)
            if only_positives:
                return targets.of_positives(ours), targets.of_positives(theirs)
            return ours, theirs

        def total(loss: Tensor) -> Tensor:
            loss = loss.sum() if only_positives else sum_of(weights * loss, targets.valid)
            return loss / targets.normalizer if self.normalize == "positives" else loss

        logits, teacher_logits = compared(logits, teacher_logits)
        if not only_positives:
            weights = teacher_logits.amax(dim=-1).sigmoid()  # (N, R)
        losses = {}
        if self.cls_weight > 0:
            loss = self._class_loss(logits, teacher_logits)  # (N, R) or (P,)
            losses["loss_cls"] = self.cls_weight * total(loss)
        if self.loc_weight > 0:
            of_boxes = _OF_BOXES[self.loc_loss]
            loss = self._box_loss(*compared(of_boxes(student), of_boxes(teacher)))
            losses["loss_loc"] = self.loc_weight * total(loss)
        return losses

    def images_warning(self, images: int) -> str | None:
        """That the losses grow with the images, unless they are divided by positives."""
        if self.normalize == "positives":
            return None
        return growth_warning("sums over the images", images, "set normalize='positives'")

    def _class_loss(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        if self.cls_loss == "softmax":
            return kl_divergence(logits, teacher_logits, self.temperature)
        if self.temperature != 1:
            logits, teacher_logits = logits / self.temperature, teacher_logits / self.temperature
        return self.temperature**2 * binary_divergence(logits, teacher_logits)

    def _box_loss(self, boxes: Tensor, teacher_boxes: Tensor) -> Tensor:
        if self.loc_loss == "giou":
            return 1 - elementwise_giou(boxes, teacher_boxes)
        if self.loc_loss == "l1":
            return (boxes - teacher_boxes).abs().mean(dim=-1)
        return kl_divergence(boxes, teacher_boxes, self.temperature).mean(dim=-1)


_OF_BOXES: dict[str, Callable[[DensePass], Tensor]] = {
    "giou": lambda dense: dense.all_boxes,
    "l1": lambda dense: torch.cat(dense.deltas, dim=1),
    "kl": lambda dense: dense.all_distributions,
}
"""What is compared of boxes, (N, R, ...)."""


def _best_anchors(logits: Tensor, num_anchors: int) -> Tensor:
    """(N, R / A): index among (N, R, K) ``logits`` of the best class score of each location."""
    best = logits.amax(dim=2).unflatten(1, (-1, num_anchors)).argmax(dim=2)  # (N, R / A)
    return best + torch.arange(best.shape[1], device=best.device) * num_anchors


def _gather(predictions: Tensor, indices: Tensor) -> Tensor:
    """(N, R', ...) of (N, R, ...): those of ``indices`` (N, R')."""
    return predictions.gather(1, indices[..., None].expand(-1, -1, predictions.shape[2]))
