"""DDOD (Chen et al., "Disentangle Your Dense Object Detector", ACM MM 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import Tensor

from ..compat import full_precision
from ..losses import elementwise_giou, elementwise_iou, focal_loss
from ..normalizers import counted_once
from ..outputs import DensePass, Targets
from .assignment.adaptive import DDODAssigner
from .atss import ATSSHead
from .base.deform_conv import DeformConv2d
from .base.heads import BRANCHES, QualityHead
from .base.options import check_options
from .base.square_anchors import SquareAnchorDetector

BOX_ALPHAS = {"mmdet": 0.5, "pgd": 0.6}
"""{cost_rule: alpha of the assigner for the box losses}"""


class DDODHead(ATSSHead):
    """Towers that begin with a deformable convolution, and an IoU branch on the box tower.

    So each tower chooses by itself where it looks ("spatial feature disentanglement").
    """

    def __init__(self, **tower: Any):
        """
        Args:
            tower: arguments of :class:`ATSSHead` but ``quality``.
        """
        super().__init__(quality="iou", **tower)
        for subnet in (self.cls_subnet, self.bbox_subnet):
            plain = subnet[0]
            conv = DeformConv2d(plain.in_channels, plain.out_channels, bias=plain.bias is not None)
            conv.weight, conv.bias = plain.weight, plain.bias  # as initialised
            subnet[0] = conv


@dataclass
class DDODTargets(Targets):
    """The targets of the class loss, and beside them those of the box.

    Attributes:
        regression: of the box and the IoU loss; its ``normalizer`` divides them.
        level_factors: (2, L), weights of the levels in the class loss, and in the box and the
            IoU loss.
    """

    # Both are always given; a default has to follow the one of Targets.quality.
    regression: Targets = None  # type: ignore[assignment]
    level_factors: Tensor = None  # type: ignore[assignment]


class DDOD(SquareAnchorDetector):
    """DDOD; the defaults are mmdetection's ``ddod_r50_fpn_1x``, with equal losses and detections.

    Three things that other detectors do alike for both tasks are separate: the towers' view of the
    pyramid (:class:`DDODHead`), the assignment (one :class:`DDODAssigner` for the class, one for
    the box, both from predictions), and the weight of the levels ("pyramid supervision
    disentanglement", see :func:`level_factors`). The IoU branch learns the IoU of the box that
    is predicted, as that of ATSS.

    PGD's baseline is ``cost_rule="pgd", separate_level_counts=True``.

    The weights of the levels depend on how many positives each had since training began. These
    counts are in the state dict (``level_positives``), so every checkpoint of a run has them, and
    the run goes on with them. Another training counts from zero, whatever file it starts from;
    mmdetection's have none. They are of this process
    and not summed over processes, as in the original; a checkpoint has those of the first process,
    with which all continue. With ``train.normalize="iteration"`` they grow by the mean over the
    processes, in all of them. :meth:`targets` moves them on in training, as it does the
    normalisers; for further labels, from another pass, call :meth:`assign`.
    """

    assigns_by_predictions = True
    training_buffers = ("loss_normalizer", "regression_normalizer")
    optional_buffers = ("level_positives",)

    regression_normalizer: Tensor
    level_positives: Tensor

    def __init__(
        self,
        *,
        head: QualityHead,
        cost_rule: str = "mmdet",
        cls_alpha: float = 0.8,
        reg_alpha: float | None = None,
        separate_level_counts: bool = False,
        assign_topk: int = 9,
        padding_multiple: int | None = 32,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        box_loss_weight: float = 2.0,
        **square_anchors: Any,
    ):
        """
        Args:
            head: a :class:`DDODHead`, or another with an IoU branch.
            cost_rule: "mmdet" or "pgd", see :class:`DDODAssigner`.
            cls_alpha, reg_alpha: of the assigners for the class and for the box; the latter is by
                default 0.5 with the rule "mmdet" and 0.6 with "pgd".
            separate_level_counts: count the positives of the two assignments apart; mmdetection
                adds both to one count.
            assign_topk, padding_multiple: see :class:`DDODAssigner`.
            focal_loss_alpha, focal_loss_gamma: of the class loss.
            box_loss_weight: of the GIoU loss.
            square_anchors: further arguments of :class:`SquareAnchorDetector`.
        """
        check_options(
            cls_alpha=cls_alpha,
            reg_alpha=reg_alpha,
            separate_level_counts=separate_level_counts,
            assign_topk=assign_topk,
            padding_multiple=padding_multiple,
            focal_loss_alpha=focal_loss_alpha,
            focal_loss_gamma=focal_loss_gamma,
            box_loss_weight=box_loss_weight,
        )
        if head.quality_kind != "iou":
            raise ValueError(
                f"head has the quality branch {head.quality_kind!r}: expected 'iou', as a "
                "DDODHead has"
            )
        super().__init__(head=head, **square_anchors)
        shared: dict[str, Any] = dict(
            topk=assign_topk, padding_multiple=padding_multiple, cost_rule=cost_rule
        )
        self.assigner = DDODAssigner(alpha=cls_alpha, **shared)
        if reg_alpha is None:
            reg_alpha = BOX_ALPHAS[cost_rule]
        self.regression_assigner = DDODAssigner(alpha=reg_alpha, **shared)
        self.separate_level_counts = separate_level_counts
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.box_loss_weight = box_loss_weight
        self.register_buffer("regression_normalizer", self.loss_normalizer.clone(), False)
        # Of the class and of the box; the latter stays 0 unless they are separate.
        self.register_buffer("level_positives", torch.zeros(2, head.num_levels, dtype=torch.int64))

    def assign(
        self, dense: DensePass, ground_truth: list[Instances], branch: str = "cls"
    ) -> tuple[Tensor, Tensor]:
        """Labels (N, R) and matched boxes (N, R, 4), from the predictions in ``dense``.

        Args:
            dense: of this detector, or of one with the same anchors and classes.
            ground_truth: N Instances with gt_boxes and gt_classes.
            branch: "cls" or "bbox", whose assigner it is.
        """
        if branch not in BRANCHES:
            raise ValueError(f"branch={branch!r}: expected one of {BRANCHES}")
        assigner = self.assigner if branch == "cls" else self.regression_assigner
        with torch.no_grad():
            deltas = torch.cat(dense.deltas, dim=1)  # (N, R, 4)
            # Not dense.boxes: without gradient they must not be kept there.
            boxes = dense.decode(deltas, torch.cat(dense.priors).expand_as(deltas))
            return assigner.assign(
                dense.priors,
                ground_truth,
                self.num_classes,
                dense.image_sizes,
                torch.cat(dense.logits, dim=1),
                boxes,
            )

    def targets(self, dense: DensePass, ground_truth: list[Instances]) -> DDODTargets:
        """Both assignments; in training this moves the normalisers and the counts on.

        Args:
            dense: of this detector, or of one with the same anchors and classes: its predictions
                decide the assignment, and nothing else of the targets.
            ground_truth: N Instances with gt_boxes and gt_classes.
        """
        targets = super().targets(dense, ground_truth)
        with torch.no_grad():
            labels, boxes = self.assign(dense, ground_truth, "bbox")
            regression = Targets(labels, boxes, self.num_classes, self.regression_normalizer)
            regression.normalizer = self._moving_average(regression, self.regression_normalizer)
            factors = []
            for row, assigned in enumerate((targets, regression)):
                counts = self.level_positives[row if self.separate_level_counts else 0]
                if self.training:
                    per_level = assigned.foreground.split(dense.num_predictions, dim=1)
                    counts += counted_once(torch.stack([level.sum() for level in per_level]))
                factors.append(level_factors(counts))
        return DDODTargets(
            targets.labels,
            targets.boxes,
            self.num_classes,
            targets.normalizer,
            regression=regression,
            level_factors=torch.stack(factors),
        )

    def losses(self, dense: DensePass, targets: Targets) -> dict[str, Tensor]:
        """``loss_cls`` (focal), ``loss_box_reg`` (GIoU) and ``loss_iou``, weighted by level."""
        if not isinstance(targets, DDODTargets):
            raise TypeError(
                f"targets is a {type(targets).__name__}, expected the DDODTargets of DDOD.targets, "
                "which hold a second assignment for the box"
            )
        assert dense.quality is not None
        with full_precision(self.device):
            labels = targets.labels.split(dense.num_predictions, dim=1)
            of_levels = [
                focal_loss(logits, label, self.focal_loss_alpha, self.focal_loss_gamma)
                for logits, label in zip(dense.logits, labels)
            ]
            cls_factors, box_factors = targets.level_factors  # (L,) both
            loss_cls = (cls_factors * torch.stack(of_levels)).sum()

            of_positives = targets.regression.of_positives
            boxes = self.matched_boxes(dense, targets.regression)  # (P, 4)
            target_boxes = of_positives(targets.regression.boxes)  # (P, 4)
            sizes = zip(box_factors, dense.num_predictions)
            weights = torch.cat([factor.expand(size) for factor, size in sizes])  # (R,)
            weights = of_positives(weights.expand_as(targets.labels))  # (P,)
            loss_box = (weights * (1 - elementwise_giou(boxes, target_boxes))).sum()
            loss_iou = F.binary_cross_entropy_with_logits(
                of_positives(torch.cat(dense.quality, dim=1)),
                elementwise_iou(boxes.detach(), target_boxes),
                weight=weights,
                reduction="sum",
            )
        normalizer = targets.regression.normalizer
        return {
            "loss_cls": loss_cls / targets.normalizer,
            "loss_box_reg": self.box_loss_weight * loss_box / normalizer,
            "loss_iou": loss_iou / normalizer,
        }


def level_factors(counts: Tensor) -> Tensor:
    """Weights of the levels: 1 where there were most positives, 2 where there were fewest.

    ``2 - (n_l - min n) / (max n - min n)``, so that levels which serve few objects learn too; 2
    everywhere while all counts are equal.

    Args:
        counts: (L,) int64, the positives of each level so far.

    Returns:
        (L,) float32.
    """
    above = (counts - counts.min()).float()
    return 2 - above / (above.max() + 1e-10)
