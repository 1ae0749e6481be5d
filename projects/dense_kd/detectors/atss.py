"""ATSS (Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
Training Sample Selection", CVPR 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from torch import Tensor, nn

from ..compat import full_precision
from ..losses import elementwise_giou, elementwise_iou, focal_loss
from ..normalizers import at_least, mean_over_processes
from ..outputs import DensePass, Targets
from .base.heads import QualityHead
from .base.options import check_options
from .base.square_anchors import SquareAnchorDetector
from .boxes.coders import centerness
from .boxes.distributions import distribution_loss

QUALITIES = ("centerness", "iou")
"""What the quality branch may predict: the kinds that ATSS has a target for."""


class ATSSHead(QualityHead):
    """Towers with one anchor per location, a scale per level, and a quality branch.

    The branch predicts from the box tower. Its convolution is ``ctrness`` or ``iou_pred``.
    """

    def __init__(
        self,
        *,
        input_shape: list[ShapeSpec],
        num_classes: int,
        conv_dims: list[int],
        norm: str | Callable[[int], nn.Module] = "GN",
        prior_prob: float = 0.01,
        conv_bias: bool = False,
        quality: str = "centerness",
        reg_max: int | None = None,
    ):
        """
        Args:
            input_shape, num_classes, conv_dims, norm, prior_prob, conv_bias: see TowerHead.
            quality: what the branch predicts: "centerness" (the paper), or "iou" (the baseline of
                PGD, Yang et al., ECCV 2022).
            reg_max: see TowerHead; with it boxes are distributions, in strides, as in GFL.
        """
        super().__init__(
            input_shape=input_shape,
            num_classes=num_classes,
            conv_dims=conv_dims,
            norm=norm,
            prior_prob=prior_prob,
            conv_bias=conv_bias,
            level_scales=True,
            quality=quality,
            reg_max=reg_max,
        )


class ATSS(SquareAnchorDetector):
    """ATSS; the defaults are mmdetection's ``atss_r50_fpn_1x``, with equal losses and detections.

    The quality branch of the head decides two things. With "centerness", the box loss of a
    positive is weighted by its centreness and divided by the sum of these weights; with "iou",
    the weights are equal, and the branch learns the IoU of the box that is predicted. The
    distribution focal loss of a head with ``reg_max`` is weighted and divided as the box loss.
    """

    trains_distribution = True

    def __init__(
        self,
        *,
        head: QualityHead,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        box_loss_weight: float = 2.0,
        distribution_loss_weight: float = 0.25,
        **square_anchors: Any,
    ):
        """
        Args:
            head: an :class:`ATSSHead`, or another with one of these branches.
            focal_loss_alpha, focal_loss_gamma: of the class loss.
            box_loss_weight: of the GIoU loss.
            distribution_loss_weight: of the distribution focal loss, if the head has ``reg_max``.
            square_anchors: further arguments of :class:`SquareAnchorDetector`.
        """
        check_options(
            focal_loss_alpha=focal_loss_alpha,
            focal_loss_gamma=focal_loss_gamma,
            box_loss_weight=box_loss_weight,
            distribution_loss_weight=distribution_loss_weight,
        )
        if head.quality_kind not in QUALITIES:
            raise ValueError(
                f"head has the quality branch {head.quality_kind!r}: expected one of {QUALITIES}, "
                "as an ATSSHead has"
            )
        super().__init__(head=head, **square_anchors)
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.box_loss_weight = box_loss_weight
        self.distribution_loss_weight = distribution_loss_weight

    def targets(self, dense: DensePass, ground_truth: list[Instances]) -> Targets:
        """As of any detector, with the target of the quality branch: centreness or IoU."""
        targets = super().targets(dense, ground_truth)
        if self.head.quality_kind == "centerness":
            targets.quality = centerness(dense.all_priors, targets.boxes, targets.foreground)
        else:
            targets.quality = self._overlap(dense, targets)
        return targets

    @torch.no_grad()
    def _overlap(self, dense: DensePass, targets: Targets) -> Tensor:
        """(N, R): IoU of predicted and matched box, 0 on background."""
        with full_precision(self.device):
            boxes = self.matched_boxes(dense, targets)
            overlap = boxes.new_zeros(targets.labels.shape)
            target_boxes = targets.of_positives(targets.boxes)
            overlap.view(-1)[targets.positives] = elementwise_iou(boxes, target_boxes)
        return overlap

    def losses(self, dense: DensePass, targets: Targets) -> dict[str, Tensor]:
        """``loss_cls`` (focal), ``loss_box_reg`` (GIoU), ``loss_centerness`` or ``loss_iou``,
        and ``loss_dfl`` if the head has ``reg_max``."""
        with full_precision(self.device):
            loss_cls = focal_loss(
                dense.all_logits,
                targets.labels,
                self.focal_loss_alpha,
                self.focal_loss_gamma,
            )
            boxes = self.matched_boxes(dense, targets)  # (P, 4)
            assert targets.quality is not None and dense.quality is not None
            quality = targets.of_positives(targets.quality)  # (P,)
            loss_box = 1 - elementwise_giou(boxes, targets.of_positives(targets.boxes))  # (P,)
            if self.head.quality_kind == "centerness":
                weights, total = quality, at_least(mean_over_processes(quality.sum()), 1)
            else:
                weights, total = torch.ones_like(quality), targets.normalizer
            loss_box = (loss_box * weights).sum() / total
            loss_quality = F.binary_cross_entropy_with_logits(
                targets.of_positives(torch.cat(dense.quality, dim=1)), quality, reduction="sum"
            )
            losses = {
                "loss_cls": loss_cls / targets.normalizer,
                "loss_box_reg": self.box_loss_weight * loss_box,
                f"loss_{self.head.quality_kind}": loss_quality / targets.normalizer,
            }
            if self.predicts_distribution:
                loss_dfl = distribution_loss(dense, targets, self.box2box_transform)  # (P,)
                loss_dfl = (loss_dfl * weights).sum() / total
                losses["loss_dfl"] = self.distribution_loss_weight * loss_dfl
        return losses
