"""LD: "Localization Distillation for Dense Object Detection" (Zheng et al., CVPR 2022)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...lengths import check_equal_lengths
from ...losses import kl_divergence, rows_of_sum
from ...options import (
    check_choices,
    check_flags,
    check_padding_multiple,
    check_positive,
    check_unused,
    check_weights,
)
from ...outputs import DensePass, Targets
from ..base import KDMethod, Needs, Step
from ..base.batch_size import PUBLISHED_IMAGES, growth_warning
from ..base.class_maps import ClassMap
from ..base.objects import inside_any_box, stacked_boxes
from .valuable_region import valuable_regions

VLR_OVERLAPS = {"iof": "iof", "diou": "iou"}
VLR_REGIONS = (*VLR_OVERLAPS, "inside")
VLR_WEIGHTINGS = ("iou", "score")
NORMALIZERS = ("none", "images")


class LD(KDMethod):
    """Distillation of the distributions over box distances, selectively, and of classes.

    With D_i the divergence of prediction i, a mean over its four sides e of B = reg_max + 1 bins

        D_i = 1/4 sum_e T^2 / B * KL(softmax(t_ie / T) || softmax(s_ie / T)),   T = loc_temperature

    and C_i = T^2 / K * KL(softmax(t_i / T) || softmax(s_i / T)) that of the K class logits, with
    T = cls_temperature, the losses are

        loss_main = main_weight * sum_{i positive} u_i * D_i,     u_i = max_k sig(s_ik)
        loss_vlr  = vlr_weight  * sum_{i in VLR}   v_i * D_i,     v_i = IoU of anchor and object
        loss_cls  = cls_weight  * sum_l mean_{i positive, on level l} C_i

    Positives are the student's. The valuable localisation region (VLR) are the anchors that
    overlap an object somewhat less, see :func:`valuable_regions`; the two may share anchors. The
    weights u and v carry no gradient.

    This is the released code, which gave the published numbers. Its VLR is not quite that of the
    paper (``vlr_region="diou"``). It divides ``loss_main`` and ``loss_vlr`` by nothing, on
    purpose, so they grow with the number of images per process: a batch of 16 in one process gives
    8 times what 8 processes with 2 images each give, for which the weights are. With another
    number than 2 the run says so once. The author advises against more than 3 images;
    ``normalize="images"`` is ours. It fails on images without objects, which here add nothing.

    Beside BCKD, whose code has one place for a class term, ``cls_weight`` is 0.

    Detectors other than GFL have distributions with a ``reg_max`` of the head. The weights of the
    released code, with its divisors and factors multiplied in:

    ========= ==== ====== === ==== ==== ==========================================================
    student   main vlr    cls T loc T cls further
    ========= ==== ====== === ==== ==== ==========================================================
    GFL       0.25 0.0625 10  10   2
    ATSS      0.25 0.0375 10  10   2
    FCOS      0.25 0.0625 10  10   2    ``vlr_region="inside", vlr_weighting="score"``
    RetinaNet 5    0.15   10  10   8    ``vlr_excludes_positives=True, joint_softmax=True``
    ========= ==== ====== === ==== ==== ==========================================================

    (0.0625 is the published 0.25, divided by 16 where ``loss_main`` is by 4. For the last three
    the code multiplies the VLR loss by 0.15, 0.25 and 0.03; we take these to stand beside its
    weight, 0.25 and for RetinaNet 5.)

    Every term looks at the batch of this process only. ``loss_main`` and ``loss_vlr`` are sums
    over its images, so with gradients that are averaged over processes the split of a batch
    matters, unless ``normalize="images"``; the means of ``loss_cls`` depend on the split.

    In a training step the tensors of the losses take, at their peak, 1.8 times the memory of the
    predictions that are compared (logits and distributions of student and teacher, float32;
    gradients included) with 80 classes, where a tenth of the predictions is positive. The region of
    500 objects in an image of 800 x 1344 with nine anchors per location takes 109 MiB.
    """

    def __init__(
        self,
        *,
        main_weight: float = 0.25,
        vlr_weight: float = 0.0625,
        cls_weight: float = 10.0,
        loc_temperature: float = 10.0,
        cls_temperature: float = 2.0,
        vlr_region: str = "iof",
        vlr_weighting: str = "iou",
        vlr_excludes_positives: bool = False,
        joint_softmax: bool = False,
        normalize: str = "none",
        padding_multiple: int | None = 32,
        class_map: ClassMap = None,
        warmup_iters: int = 0,
    ):
        """
        Args:
            main_weight, vlr_weight, cls_weight: of the terms; 0 leaves a term out.
            loc_temperature, cls_temperature: of the distributions and of the classes.
            vlr_region: see :func:`valuable_regions`: "iof" (code) or "diou" (paper); or "inside":
                the background predictions whose centre is in an object (released FCOS).
            vlr_weighting: v_i is "iou", or "score": as u_i (released FCOS).
            vlr_excludes_positives: leave the student's positives out of the VLR (released
                RetinaNet).
            joint_softmax: D_i = 1/4 * T^2 / 4B * KL of one softmax over the bins of all four sides
                (released RetinaNet).
            normalize: "none" (code), or "images": ``loss_main`` and ``loss_vlr`` are for
                2 images per process and divided by half the number that there are.
            padding_multiple: where the padding begins that is in no VLR, as for the assigner of
                ATSS and GFL.
            class_map: which classes correspond, where those of student and teacher differ, see
                :data:`ClassMap`; of no concern with ``cls_weight=0``.
            warmup_iters: see :class:`KDMethod`.

        Raises:
            ValueError: an option has a value that it may not have, or one that is changed has no
                effect beside the others.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_choices(
            ("vlr_region", vlr_region, VLR_REGIONS),
            ("vlr_weighting", vlr_weighting, VLR_WEIGHTINGS),
            ("normalize", normalize, NORMALIZERS),
        )
        if vlr_region == "inside" and vlr_weighting == "iou":
            raise ValueError(
                "vlr_region='inside' with vlr_weighting='iou': a point in an object has no IoU "
                "with it; set vlr_weighting='score'"
            )
        check_positive(loc_temperature=loc_temperature, cls_temperature=cls_temperature)
        check_weights(main_weight=main_weight, vlr_weight=vlr_weight, cls_weight=cls_weight)
        check_flags(vlr_excludes_positives=vlr_excludes_positives, joint_softmax=joint_softmax)
        check_padding_multiple(padding_multiple)
        if main_weight == vlr_weight == 0:
            check_unused(
                LD,
                "main_weight=vlr_weight=0",
                loc_temperature=loc_temperature,
                joint_softmax=joint_softmax,
                normalize=normalize,
            )
        if cls_weight == 0:
            check_unused(LD, "cls_weight=0", cls_temperature=cls_temperature)
        of_region = dict(
            vlr_excludes_positives=vlr_excludes_positives, padding_multiple=padding_multiple
        )
        if vlr_weight == 0:
            region = dict(vlr_region=vlr_region, vlr_weighting=vlr_weighting)
            check_unused(LD, "vlr_weight=0", **region, **of_region)
        if vlr_region == "inside":  # of the background
            check_unused(LD, "vlr_region='inside'", **of_region)
        self.needs = Needs(
            same_priors=True,
            same_classes=cls_weight > 0,
            several_classes=cls_weight > 0,
            distribution=True,
            ground_truth=True,
            features=False,
        )
        self.main_weight = main_weight
        self.vlr_weight = vlr_weight
        self.cls_weight = cls_weight
        self.loc_temperature = loc_temperature
        self.cls_temperature = cls_temperature
        self.vlr_region = vlr_region
        self.vlr_weighting = vlr_weighting
        self.vlr_excludes_positives = vlr_excludes_positives
        self.joint_softmax = joint_softmax
        self.normalize = normalize
        self.padding_multiple = padding_multiple
        self.class_map = class_map

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_main``, ``loss_vlr`` and ``loss_cls``, those of them whose weight is not 0."""
        weights = self._box_weights(student, step)
        divisor = len(step.ground_truth) / PUBLISHED_IMAGES if self.normalize == "images" else 1.0
        losses = {}
        if weights:
            rows = rows_of_sum(*weights.values())
            divergence = self._box_divergence(student, teacher, rows)
            factors = {"loss_main": self.main_weight, "loss_vlr": self.vlr_weight}
            for term, weight in weights.items():
                losses[term] = factors[term] / divisor * (weight[rows] * divergence).sum()
        if self.cls_weight > 0:
            loss = self._class_loss(student, teacher, step.targets)
            losses["loss_cls"] = self.cls_weight * loss
        return losses

    def images_warning(self, images: int) -> str | None:
        """That terms grow with the images, unless they are divided by their number."""
        sums = {"loss_main": self.main_weight, "loss_vlr": self.vlr_weight}
        terms = [term for term, weight in sums.items() if weight > 0]
        if self.normalize == "images" or not terms:
            return None
        growing = f"{' and '.join(terms)}: sums over the images"
        return growth_warning(growing, images, "set normalize='images'")

    def _box_weights(self, student: DensePass, step: Step) -> dict[str, Tensor]:
        """{term: u_i or v_i where D_i counts in it, else 0, (N, R)}, of the terms of boxes."""
        weights = {}
        by_score = self.vlr_weight > 0 and self.vlr_weighting == "score"
        if self.main_weight > 0 or by_score:
            scores = student.all_logits.detach().amax(dim=2).sigmoid()  # (N, R), the best
        if self.main_weight > 0:
            weights["loss_main"] = scores * step.targets.foreground
        if self.vlr_weight > 0:
            region = self._region(student, step)
            if by_score:
                region = scores * (region > 0)
            weights["loss_vlr"] = region
        return weights

    def _region(self, student: DensePass, step: Step) -> Tensor:
        """(N, R): above 0 in the VLR, the IoU where it goes by that."""
        targets = step.targets
        gt_boxes = [truth.gt_boxes.tensor for truth in step.ground_truth]
        check_equal_lengths(ground_truth=gt_boxes, labels=targets.labels)
        if self.vlr_region == "inside":
            inside = inside_any_box(student.priors, stacked_boxes(gt_boxes))
            return (inside & (targets.labels == targets.num_classes)).float()
        region = valuable_regions(
            student.priors,
            gt_boxes,
            student.image_sizes,
            overlap=VLR_OVERLAPS[self.vlr_region],
            padding_multiple=self.padding_multiple,
        )
        return region * ~targets.foreground if self.vlr_excludes_positives else region

    def _box_divergence(self, student: DensePass, teacher: DensePass, rows: Any) -> Tensor:
        """D of the predictions ``rows``, see :func:`rows_of_sum`."""
        ours, theirs = student.all_distributions[rows], teacher.all_distributions[rows]
        if self.joint_softmax:  # (..., 1, 4 * bins)
            ours, theirs = ours.flatten(-2).unsqueeze(-2), theirs.flatten(-2).unsqueeze(-2)
        divergence = kl_divergence(ours, theirs, self.loc_temperature)  # (..., 4 or 1)
        return divergence.sum(dim=-1) / (4 * ours.shape[-1])

    def _class_loss(self, student: DensePass, teacher: DensePass, targets: Targets) -> Tensor:
        ours, theirs = map(targets.of_positives, self.comparable_logits(student, teacher))
        divergence = kl_divergence(ours, theirs, self.cls_temperature) / ours.shape[-1]  # (P,)
        counts = targets.positives_on_level(student.num_predictions)  # (R,)
        return (divergence / targets.of_positives(counts.expand_as(targets.labels))).sum()
