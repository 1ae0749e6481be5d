"""FCOS (Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import build_backbone
from detectron2.structures import Instances
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from ..compat import full_precision
from ..losses import elementwise_iou, focal_loss
from ..normalizers import at_least, mean_over_processes
from ..outputs import DensePass, Targets
from .assignment.fcos import FCOSAssigner
from .base.dense import DenseDetector
from .base.heads import BRANCHES, QualityHead
from .base.levels import pyramid_levels
from .base.options import check_options
from .boxes.coders import DistanceCoder, centerness
from .boxes.distributions import distribution_loss


class FCOSHead(QualityHead):
    """Towers with one prediction per location and a centreness branch.

    The defaults are detectron2 main's ``FCOSHead`` (same parameter names).
    """

    def __init__(
        self,
        *,
        input_shape: list[ShapeSpec],
        num_classes: int,
        conv_dims: list[int],
        norm: str | Callable[[int], nn.Module] = "",
        prior_prob: float = 0.01,
        conv_bias: bool = True,
        centerness_on: str = "bbox",
        level_scales: bool = False,
        reg_max: int | None = None,
    ):
        """
        Args:
            input_shape, num_classes, conv_dims, norm, prior_prob, conv_bias, level_scales: see
                TowerHead.
            reg_max: see TowerHead; with it boxes are distributions, in strides, as in GFL.
            centerness_on: the tower that centreness is predicted from, "cls" (the paper) or
                "bbox" (detectron2, and mmdet's ``centerness_on_reg``).
        """
        if centerness_on not in BRANCHES:
            raise ValueError(f"centerness_on={centerness_on!r}: expected 'cls' or 'bbox'")
        super().__init__(
            input_shape=input_shape,
            num_classes=num_classes,
            conv_dims=conv_dims,
            norm=norm,
            prior_prob=prior_prob,
            conv_bias=conv_bias,
            level_scales=level_scales,
            reg_max=reg_max,
            quality="centerness",
            quality_on=centerness_on,
        )


BOX_LOSSES = ("giou", "iou")
LOSS_WEIGHTINGS = ("uniform", "centerness")
SCORES = ("sqrt", "product")


class FCOS(DenseDetector):
    """FCOS; the defaults are detectron2 main's FCOS, with equal losses and detections.

    Variants, and the options that make them (``head`` is an :class:`FCOSHead`):

    * detectron2: the defaults; head norm "GN".
    * the paper's plain FCOS (mmdet ``fcos_r50-caffe_fpn_gn-head_1x``): ``center_sampling_radius=
      None``, ``box2box_transform=DistanceCoder(activation="exp", normalize_by_size=False)``,
      ``box_reg_loss_type="iou"``, ``box_loss_weighting="centerness"``,
      ``loss_normalizer_momentum=0``, ``loss_normalizer_sync=True``, ``assign_rule="mmdet"``,
      ``score="product"``, ``clip_before_nms=True``, ``test_score_thresh=0.05``,
      ``test_nms_thresh=0.5``; head ``centerness_on="cls", level_scales=True, conv_bias=False``.
    * mmdet's norm/tricks variant (``..._center-normbbox-centeronreg-giou_1x``): as plain, with
      ``center_sampling_radius=1.5``, ``box2box_transform=DistanceCoder()``,
      ``box_reg_loss_type="giou"``, ``test_nms_thresh=0.6``; head ``centerness_on="bbox",
      level_scales=True, conv_bias=True``.

    The distribution focal loss of a head with ``reg_max`` is weighted and divided as the box loss.
    """

    trains_distribution = True

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: FCOSHead,
        head_in_features: list[str] | None = None,
        anchor_generator: nn.Module | None = None,
        box2box_transform: DistanceCoder | None = None,
        center_sampling_radius: float | None = 1.5,
        assign_rule: str = "detectron2",
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        box_reg_loss_type: str = "giou",
        box_loss_weighting: str = "uniform",
        distribution_loss_weight: float = 0.25,
        score: str = "sqrt",
        test_score_thresh: float = 0.2,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.6,
        max_detections_per_image: int = 100,
        **dense: Any,
    ):
        """
        Args:
            backbone, head, head_in_features: see :class:`DenseDetector`.
            anchor_generator: of one prior per location, whose centre is the point; by default a
                square of the stride's size in the middle of the cell.
            box2box_transform: code of the boxes, ``DistanceCoder()`` by default.
            center_sampling_radius: in strides around a box's centre within which points are
                positive; None is the whole box.
            assign_rule: see :class:`FCOSAssigner`.
            focal_loss_alpha, focal_loss_gamma: of the class loss.
            box_reg_loss_type: "giou", or "iou" (-log IoU, the paper).
            box_loss_weighting: "uniform" (divided by the positives) or "centerness" (weighted by
                its target and divided by the targets' sum over all processes).
            distribution_loss_weight: of the distribution focal loss, if the head has ``reg_max``.
            score: "sqrt" thresholds and ranks by sqrt(class * centreness); "product" thresholds
                by the class score and then multiplies with centreness (the paper).
            test_score_thresh, test_topk_candidates, test_nms_thresh, max_detections_per_image:
                see :class:`DenseDetector`, as the further arguments ``dense``.
        """
        if head.quality_kind != "centerness":
            raise ValueError(
                f"head has the quality branch {head.quality_kind!r}: expected 'centerness', as an "
                "FCOSHead has"
            )
        for name, value, expected in (
            ("box_reg_loss_type", box_reg_loss_type, BOX_LOSSES),
            ("box_loss_weighting", box_loss_weighting, LOSS_WEIGHTINGS),
            ("score", score, SCORES),
        ):
            if value not in expected:
                raise ValueError(f"{name}={value!r}: expected one of {expected}")
        check_options(
            center_sampling_radius=center_sampling_radius,
            focal_loss_alpha=focal_loss_alpha,
            focal_loss_gamma=focal_loss_gamma,
            distribution_loss_weight=distribution_loss_weight,
        )
        levels, strides = pyramid_levels(backbone, head_in_features)
        dense.setdefault("loss_normalizer", 300.0)
        dense.setdefault("loss_normalizer_momentum", 0.9)
        if anchor_generator is None:
            anchor_generator = DefaultAnchorGenerator(
                sizes=[[stride] for stride in strides], aspect_ratios=[1.0], strides=strides
            )
        super().__init__(
            backbone=backbone,
            head=head,
            head_in_features=levels,
            anchor_generator=anchor_generator,
            box2box_transform=box2box_transform or DistanceCoder(),
            test_score_thresh=test_score_thresh,
            test_topk_candidates=test_topk_candidates,
            test_nms_thresh=test_nms_thresh,
            max_detections_per_image=max_detections_per_image,
            **dense,
        )
        self.assigner = FCOSAssigner(
            center_sampling_radius=center_sampling_radius, rule=assign_rule
        )
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.box_reg_loss_type = box_reg_loss_type
        self.box_loss_weighting = box_loss_weighting
        self.distribution_loss_weight = distribution_loss_weight
        self.score = score

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The constructor's arguments for a yacs config with ``add_dense_kd_config``'s keys."""
        backbone = build_backbone(cfg)
        fcos = cfg.MODEL.FCOS
        shapes = backbone.output_shape()
        head = FCOSHead(
            input_shape=[shapes[name] for name in fcos.IN_FEATURES],
            num_classes=fcos.NUM_CLASSES,
            conv_dims=[shapes[fcos.IN_FEATURES[0]].channels] * fcos.NUM_CONVS,
            norm=fcos.NORM,
            prior_prob=fcos.PRIOR_PROB,
            reg_max=fcos.REG_MAX,
        )
        return {
            "backbone": backbone,
            "head": head,
            "head_in_features": fcos.IN_FEATURES,
            "num_classes": fcos.NUM_CLASSES,
            "center_sampling_radius": fcos.CENTER_SAMPLING_RADIUS,
            "focal_loss_alpha": fcos.FOCAL_LOSS_ALPHA,
            "focal_loss_gamma": fcos.FOCAL_LOSS_GAMMA,
            "test_score_thresh": fcos.SCORE_THRESH_TEST,
            "test_topk_candidates": fcos.TOPK_CANDIDATES_TEST,
            "test_nms_thresh": fcos.NMS_THRESH_TEST,
            "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "vis_period": cfg.VIS_PERIOD,
            "input_format": cfg.INPUT.FORMAT,
        }

    def assign(self, dense: DensePass, ground_truth: list[Instances]) -> tuple[Tensor, Tensor]:
        """Labels (N, R) and matched boxes (N, R, 4) by :class:`FCOSAssigner`."""
        return self.assigner.assign(dense.priors, ground_truth, self.num_classes)

    def targets(self, dense: DensePass, ground_truth: list[Instances]) -> Targets:
        """As of any detector, with the centreness of the positives."""
        targets = super().targets(dense, ground_truth)
        targets.quality = centerness(dense.all_priors, targets.boxes, targets.foreground)
        return targets

    def losses(self, dense: DensePass, targets: Targets) -> dict[str, Tensor]:
        """``loss_fcos_cls`` (focal), ``loss_fcos_loc`` and ``loss_fcos_ctr``, and
        ``loss_fcos_dfl`` if the head has ``reg_max``."""
        with full_precision(self.device):
            loss_cls = focal_loss(
                dense.all_logits,
                targets.labels,
                self.focal_loss_alpha,
                self.focal_loss_gamma,
            )
            boxes = self.matched_boxes(dense, targets)  # (P, 4)
            assert targets.quality is not None and dense.quality is not None
            quality = targets.of_positives(targets.quality)  # (P,), centreness
            loss_box = self._box_loss(boxes, targets.of_positives(targets.boxes))  # (P,)
            if self.box_loss_weighting == "centerness":
                weights, total = quality, at_least(mean_over_processes(quality.sum()), 1e-6)
            else:
                weights, total = torch.ones_like(quality), targets.normalizer
            loss_box = (loss_box * weights).sum() / total
            loss_centerness = F.binary_cross_entropy_with_logits(
                targets.of_positives(torch.cat(dense.quality, dim=1)), quality, reduction="sum"
            )
            losses = {
                "loss_fcos_cls": loss_cls / targets.normalizer,
                "loss_fcos_loc": loss_box,
                "loss_fcos_ctr": loss_centerness / targets.normalizer,
            }
            if self.predicts_distribution:
                loss_dfl = distribution_loss(dense, targets, self.box2box_transform)  # (P,)
                loss_dfl = (loss_dfl * weights).sum() / total
                losses["loss_fcos_dfl"] = self.distribution_loss_weight * loss_dfl
        return losses

    def _box_loss(self, boxes: Tensor, target_boxes: Tensor) -> Tensor:
        if self.box_reg_loss_type == "giou":
            return generalized_box_iou_loss(boxes, target_boxes)
        return -elementwise_iou(boxes, target_boxes).clamp(min=1e-6).log()

    def detection_scores(self, dense: DensePass) -> tuple[list[Tensor], list[Tensor] | None]:
        """By ``score``, the class scores with the centreness as their factor, or the root of the
        product of both."""
        scores = [logits.sigmoid() for logits in dense.logits]
        assert dense.quality is not None
        factors = [quality.sigmoid() for quality in dense.quality]  # centreness
        if self.score == "product":
            return scores, factors
        return [(s * c[..., None]).sqrt() for s, c in zip(scores, factors)], None
