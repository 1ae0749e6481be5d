"""BCKD: "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection"
(Yang et al., ICCV 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..losses import elementwise_giou, elementwise_iou, modulated_binary_cross_entropy, sum_of
from ..options import check_choices, check_flags, check_unused, check_weights
from ..outputs import DensePass, Targets
from .base import KDMethod, Needs, Step
from .base.batch_size import growth_warning
from .base.class_maps import ClassMap

LOC_LOSSES = {"giou": elementwise_giou, "iou": elementwise_iou}
NORMALIZERS = ("positives", "none")


class BCKD(KDMethod):
    """Binary classification distillation and IoU localisation distillation.

    With student logits s_ik and teacher logits t_ik of prediction i and class k, boxes b_s,i and
    b_t,i, and n what the detector divides its class loss by:

        loss_cls = cls_weight / n * sum_ik |sig(t_ik) - sig(s_ik)| * BCE(sig(s_ik), sig(t_ik))
        loss_loc = loc_weight / n * sum_i w_i * (1 - GIoU(b_s,i , b_t,i)),
                   w_i = max_k |sig(t_ik) - sig(s_ik)|

    (equations 6 to 10). Both factors of ``loss_cls`` carry gradient to the student; the
    weight w of ``loss_loc`` does not. i runs over all predictions of the image, foreground and
    background, except those the student's assigner ignores, and except levels without a single
    positive in this process's batch.

    Where the paper and the released code differ, the default is the code, which gave the published
    numbers: it uses GIoU (paper: IoU, ``loc_loss="iou"``), divides by the number of positives
    (paper: plain sums, ``normalize="none"``), and leaves out ignored predictions (paper: all,
    ``mask_ignored=False``) and levels without a positive (paper: all,
    ``skip_empty_levels=False``). Released for GFL, with ``cls_weight=1, loc_weight=4`` (Tables 4
    and 5); published for RetinaNet and FCOS, too, of which the paper names no other weights.

    The released GFL also weights a positive's box losses with its best score plus 2e-4, and divides
    them by the sum of the weights without a clamp at 1; here the student's own losses are GFL's.

    The skip rule looks at the local batch, so with it the loss depends on how a batch is split
    over processes; the normaliser is the detector's, synchronised where that is. With
    ``normalize="none"`` the losses grow with the number of images per process, which the run says
    once.

    In a training step the tensors of the losses take, at their peak, 3.0 times the memory of the
    predictions that are compared (logits and boxes of student and teacher, float32; gradients
    included) with 80 classes, all levels having positives.
    """

    needs = Needs(same_priors=True, same_classes=True, ground_truth=True, features=False)

    def __init__(
        self,
        *,
        cls_weight: float = 1.0,
        loc_weight: float = 4.0,
        loc_loss: str = "giou",
        normalize: str = "positives",
        skip_empty_levels: bool = True,
        mask_ignored: bool = True,
        class_map: ClassMap = None,
        warmup_iters: int = 0,
    ):
        """
        Args:
            cls_weight: alpha_1, of the class term; 0 leaves it out.
            loc_weight: alpha_2, of the localisation term; 0 leaves it out.
            loc_loss: "giou" (code) or "iou" (paper).
            normalize: "positives" (code) or "none" (paper).
            skip_empty_levels: leave out levels without a positive (code).
            mask_ignored: leave out predictions that the assigner ignores (code).
            class_map: which classes correspond, where those of student and teacher differ, see
                :data:`ClassMap`.
            warmup_iters: see :class:`KDMethod`.

        Raises:
            ValueError: an option has a value that it may not have, or one that is changed has no
                effect beside the others.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_choices(
            ("loc_loss", loc_loss, tuple(LOC_LOSSES)),
            ("normalize", normalize, NORMALIZERS),
        )
        check_weights(cls_weight=cls_weight, loc_weight=loc_weight)
        check_flags(skip_empty_levels=skip_empty_levels, mask_ignored=mask_ignored)
        if loc_weight == 0:
            check_unused(BCKD, "loc_weight=0", loc_loss=loc_loss)
        self.cls_weight = cls_weight
        self.loc_weight = loc_weight
        self.loc_loss = loc_loss
        self.normalize = normalize
        self.skip_empty_levels = skip_empty_levels
        self.mask_ignored = mask_ignored
        self.class_map = class_map

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_cls`` and ``loss_loc``, those of them whose weight is not 0."""
        selected = self._selected(student, step.targets)  # (N, R)
        logits, teacher_logits = self.comparable_logits(student, teacher)  # (N, R, K)
        normalizer = step.targets.normalizer if self.normalize == "positives" else 1.0
        loss, weight = modulated_binary_cross_entropy(logits, teacher_logits, beta=1.0)  # (N, R)
        losses = {}
        if self.cls_weight > 0:
            losses["loss_cls"] = self.cls_weight * sum_of(loss, selected) / normalizer
        if self.loc_weight > 0:
            overlap = LOC_LOSSES[self.loc_loss](student.all_boxes, teacher.all_boxes.detach())
            loss = weight * (1 - overlap)  # (N, R)
            losses["loss_loc"] = self.loc_weight * sum_of(loss, selected) / normalizer
        return losses

    def images_warning(self, images: int) -> str | None:
        """That the losses grow with the images, unless they are divided by positives."""
        if self.normalize == "positives":
            return None
        return growth_warning("sums over the images", images, "set normalize='positives'")

    def _selected(self, student: DensePass, targets: Targets) -> Tensor:
        selected = targets.valid if self.mask_ignored else torch.ones_like(targets.valid)
        if self.skip_empty_levels:
            selected = selected & targets.level_has_foreground(student.num_predictions)
        return selected
