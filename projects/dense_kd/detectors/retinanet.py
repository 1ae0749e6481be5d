"""RetinaNet (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017)."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import RetinaNet as Detectron2RetinaNet
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.structures import Instances
from torch import Tensor

from ..compat import full_precision
from ..losses import BOX_LOSSES, dense_box_loss, focal_loss
from ..outputs import DensePass, Targets
from .assignment.max_iou import MaxIoUAssigner
from .base.dense import DenseDetector
from .base.heads import TowerHead
from .base.options import check_options
from .boxes.distributions import distribution_loss


class RetinaNet(DenseDetector):
    """detectron2's RetinaNet: the same arguments, parameter names, losses and detections.

    Checkpoints of either class load into the other. The moving average of the number of positives
    that divides the losses starts at 100 with momentum 0.9, as detectron2's does.

    mmdetection's RetinaNet (``retinanet_r50_fpn_1x``), with equal losses and detections:
    ``box2box_transform=DeltaCoder()``, ``padding_multiple=32``, ``reassign_best_anchors=True``,
    ``count_empty_images=True``, ``loss_normalizer_momentum=0``, ``clip_before_nms=True``.

    With distributions over distances, as in LD (Zheng et al., CVPR 2022): a head with
    ``reg_max=16``, ``box2box_transform=DistanceCoder(activation="identity", prior_scale=8)`` and
    ``box_reg_loss_type="giou"``. LD does not say what its distances are in; ours are in eighths of
    the anchor's own width and height, which makes GFL's of a square of 8 strides, and 16 of them
    enclose every box that overlaps an anchor by half.
    """

    trains_distribution = True

    def __init__(
        self,
        *,
        anchor_matcher: Matcher,
        padding_multiple: int | None = None,
        reassign_best_anchors: bool = False,
        focal_loss_alpha: float = 0.25,
        focal_loss_gamma: float = 2.0,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        distribution_loss_weight: float = 0.25,
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.5,
        max_detections_per_image: int = 100,
        **dense: Any,
    ):
        """
        Args:
            anchor_matcher: labels the anchors by their IoU with the ground truth.
            padding_multiple, reassign_best_anchors: see :class:`MaxIoUAssigner`.
            focal_loss_alpha, focal_loss_gamma: of the class loss.
            smooth_l1_beta: where the box loss "smooth_l1" becomes linear; 0 is L1.
            box_reg_loss_type: "smooth_l1", "giou", "diou" or "ciou".
            distribution_loss_weight: of the distribution focal loss, if the head has ``reg_max``.
            test_score_thresh, test_topk_candidates, test_nms_thresh, max_detections_per_image:
                see :class:`DenseDetector`, as the further arguments ``dense``.
        """
        check_options(
            padding_multiple=padding_multiple,
            reassign_best_anchors=reassign_best_anchors,
            focal_loss_alpha=focal_loss_alpha,
            focal_loss_gamma=focal_loss_gamma,
            smooth_l1_beta=smooth_l1_beta,
            distribution_loss_weight=distribution_loss_weight,
        )
        dense.setdefault("loss_normalizer", 100.0)
        dense.setdefault("loss_normalizer_momentum", 0.9)
        super().__init__(
            test_score_thresh=test_score_thresh,
            test_topk_candidates=test_topk_candidates,
            test_nms_thresh=test_nms_thresh,
            max_detections_per_image=max_detections_per_image,
            **dense,
        )
        if box_reg_loss_type not in BOX_LOSSES:
            raise ValueError(f"box_reg_loss_type={box_reg_loss_type!r}: expected {BOX_LOSSES}")
        self.assigner = MaxIoUAssigner(
            anchor_matcher,
            padding_multiple=padding_multiple,
            reassign_best_anchors=reassign_best_anchors,
        )
        self.focal_loss_alpha = focal_loss_alpha
        self.focal_loss_gamma = focal_loss_gamma
        self.smooth_l1_beta = smooth_l1_beta
        self.box_reg_loss_type = box_reg_loss_type
        self.distribution_loss_weight = distribution_loss_weight

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The constructor's arguments for a yacs config whose keys are detectron2's own."""
        arguments = Detectron2RetinaNet.from_config(cfg)
        shapes = arguments["backbone"].output_shape()
        shapes = [shapes[name] for name in arguments["head_in_features"]]
        arguments["head"] = TowerHead(**RetinaNetHead.from_config(cfg, shapes))
        return arguments

    def assign(self, dense: DensePass, ground_truth: list[Instances]) -> tuple[Tensor, Tensor]:
        """Labels (N, R) and matched boxes (N, R, 4) by :class:`MaxIoUAssigner`."""
        return self.assigner.assign(dense.priors, ground_truth, self.num_classes, dense.image_sizes)

    def losses(self, dense: DensePass, targets: Targets) -> dict[str, Tensor]:
        """``loss_cls`` (focal), ``loss_box_reg``, and ``loss_dfl`` if the head has ``reg_max``:
        sums divided by ``targets.normalizer``."""
        with full_precision(self.device):
            loss_cls = focal_loss(
                dense.all_logits,
                targets.labels,
                self.focal_loss_alpha,
                self.focal_loss_gamma,
            )
            deltas = torch.cat(dense.deltas, dim=1)  # (N, R, 4)
            priors, deltas, boxes = map(  # (P, 4) each
                targets.of_positives,
                (dense.all_priors.expand_as(deltas), deltas, targets.boxes),
            )
            loss_box = dense_box_loss(
                self.box_reg_loss_type,
                deltas,
                self.box2box_transform.get_deltas(priors, boxes),
                self.decode(deltas, priors),
                boxes,
                self.smooth_l1_beta,
            )
            losses = {
                "loss_cls": loss_cls / targets.normalizer,
                "loss_box_reg": loss_box / targets.normalizer,
            }
            if self.predicts_distribution:
                loss_dfl = distribution_loss(dense, targets, self.box2box_transform).sum()
                loss_dfl = loss_dfl / targets.normalizer
                losses["loss_dfl"] = self.distribution_loss_weight * loss_dfl
        return losses
