"""GFL (Li et al., "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for
Dense Object Detection", NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ..compat import full_precision
from ..losses import elementwise_giou, elementwise_iou, quality_focal_loss, sum_of
from ..normalizers import at_least, mean_over_processes
from ..outputs import DensePass, Targets
from .base.heads import TowerHead
from .base.options import check_options
from .base.square_anchors import SquareAnchorDetector
from .boxes.distributions import distribution_loss


class GFLHead(TowerHead):
    """Towers with one prediction per location; boxes are distributions over distances."""

    def __init__(
        self,
        *,
        input_shape: list[ShapeSpec],
        num_classes: int,
        conv_dims: list[int],
        norm: str | Callable[[int], nn.Module] = "GN",
        prior_prob: float = 0.01,
        conv_bias: bool = False,
        reg_max: int = 16,
    ):
        """
        Args:
            input_shape, num_classes, conv_dims, norm, prior_prob, conv_bias: see TowerHead.
            reg_max: the largest distance in strides; a distribution has one bin more.
        """
        super().__init__(
            input_shape=input_shape,
            num_classes=num_classes,
            num_anchors=1,
            conv_dims=conv_dims,
            norm=norm,
            prior_prob=prior_prob,
            conv_bias=conv_bias,
            level_scales=True,
            reg_max=reg_max,
        )


class GFL(SquareAnchorDetector):
    """GFL; the defaults are mmdetection's ``gfl_r50_fpn_1x``, with equal losses and detections.

    The distance of each side from the centre of the anchor, in strides, is the expectation of a
    distribution over 0, 1, ..., reg_max (equation 4). ``DensePass.distribution`` holds its logits
    and ``DensePass.deltas`` the expected distances. The class score is trained to be the IoU of
    the box, so there is no quality branch.
    """

    trains_distribution = True

    def __init__(
        self,
        *,
        head: GFLHead,
        quality_focal_loss_beta: float = 2.0,
        box_loss_weight: float = 2.0,
        distribution_loss_weight: float = 0.25,
        **square_anchors: Any,
    ):
        """
        Args:
            head: predicts the distributions.
            quality_focal_loss_beta: of the class loss.
            box_loss_weight: of the GIoU loss.
            distribution_loss_weight: of the distribution focal loss.
            square_anchors: further arguments of :class:`SquareAnchorDetector`.
        """
        if not isinstance(head, GFLHead):
            raise TypeError(f"head is a {type(head).__name__}, expected a GFLHead")
        check_options(
            quality_focal_loss_beta=quality_focal_loss_beta,
            box_loss_weight=box_loss_weight,
            distribution_loss_weight=distribution_loss_weight,
        )
        super().__init__(head=head, **square_anchors)
        self.quality_focal_loss_beta = quality_focal_loss_beta
        self.box_loss_weight = box_loss_weight
        self.distribution_loss_weight = distribution_loss_weight

    def losses(self, dense: DensePass, targets: Targets) -> dict[str, Tensor]:
        """``loss_cls`` (quality focal), ``loss_box_reg`` (GIoU) and ``loss_dfl``.

        The latter two are weighted by the largest class score of each positive, without gradient,
        and divided by the sum of these weights.
        """
        with full_precision(self.device):
            logits = dense.all_logits  # (N, R, K)
            boxes = self.matched_boxes(dense, targets)  # (P, 4)
            target_boxes = targets.of_positives(targets.boxes)  # (P, 4)
            soft_labels = torch.zeros_like(logits)
            classes = targets.of_positives(targets.labels)
            soft_labels.flatten(0, 1)[targets.positives, classes] = elementwise_iou(
                boxes.detach(), target_boxes
            )
            loss_cls = quality_focal_loss(logits, soft_labels, self.quality_focal_loss_beta)
            loss_cls = sum_of(loss_cls, targets.valid)

            weights = targets.of_positives(logits.detach()).amax(dim=-1).sigmoid()  # (P,)
            total = at_least(mean_over_processes(weights.sum()), 1)
            loss_box = (weights * (1 - elementwise_giou(boxes, target_boxes))).sum()
            loss_dfl = (weights * distribution_loss(dense, targets, self.box2box_transform)).sum()
        return {
            "loss_cls": loss_cls / targets.normalizer,
            "loss_box_reg": self.box_loss_weight * loss_box / total,
            "loss_dfl": self.distribution_loss_weight * loss_dfl / total,
        }
