"""AutoAssign (Zhu et al., "AutoAssign: Differentiable Label Assignment for Dense Object Detection",
arXiv 2007.03496, 2020)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling import Backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Instances
from torch import Tensor, nn

from ..compat import full_precision
from ..losses import elementwise_giou
from ..normalizers import at_least, mean_over_processes
from ..outputs import DensePass, Targets
from .assignment.soft import (
    EPS,
    Pairs,
    negative_loss,
    negative_weights,
    points_inside,
    positive_loss,
)
from .base.dense import DenseDetector
from .base.heads import QualityHead
from .base.levels import pyramid_levels
from .base.options import check_options
from .boxes.coders import DistanceCoder


class CenterPrior(nn.Module):
    """How likely a location is to be on an object, by its offset from the centre of the box.

    A Gaussian for each class and axis, whose mean and deviation are learned, in strides of the
    location's level ("center weighting" of the paper):

        G(d) = prod over x, y of exp(-(d - mean)^2 / (2 sigma^2))
    """

    def __init__(self, num_classes: int):
        """
        Args:
            num_classes: K.
        """
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(num_classes, 2))
        self.sigma = nn.Parameter(torch.ones(num_classes, 2))

    def forward(self, offsets: Tensor, classes: Tensor) -> Tensor:
        """The logarithm of G, which is finite where G underflows.

        Args:
            offsets: (P, 2) from the centres of boxes to locations, in strides.
            classes: (P,) of the boxes.

        Returns:
            (P,), at most 0.
        """
        variance = self.sigma.square().clamp(min=EPS)
        exponent = (offsets - self.mean[classes]).square() / (2 * variance[classes])
        return -exponent.sum(dim=1)


class AutoAssignHead(QualityHead):
    """Towers with one prediction per location, an objectness branch and the centre prior.

    Objectness ("implicit objectness" of the paper) has no target of its own: it is learned as a
    factor of the class score. It is predicted from the box tower, by the convolution ``ctrness``.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        norm: str | Callable[[int], nn.Module] = "GN",
        prior_prob: float = 0.02,
        box_bias: float = 4.0,
        **tower: Any,
    ):
        """
        Args:
            num_classes, norm, prior_prob: see :class:`.base.heads.TowerHead`, as the further
                arguments ``tower``.
            box_bias: distance of all sides after initialisation, in strides.
        """
        super().__init__(
            num_classes=num_classes,
            norm=norm,
            prior_prob=prior_prob,
            level_scales=True,
            quality="objectness",
            **tower,
        )
        check_options(box_bias=box_bias)
        _, bias = self.bbox_pred.parameters()
        nn.init.constant_(bias, box_bias)
        self.center_prior = CenterPrior(num_classes)


@dataclass
class AutoAssignTargets(Targets):
    """Targets for methods, and the ground truth, which is what AutoAssign itself learns from.

    Attributes:
        ground_truth: N Instances with gt_boxes and gt_classes.
    """

    ground_truth: list[Instances] = field(default_factory=list)


class AutoAssign(DenseDetector):
    """AutoAssign; the defaults are mmdetection's ``autoassign_r50_caffe_fpn_1x``, with equal losses
    and detections.

    Distances to the sides are in strides, from the point (x * stride, y * stride). No location is
    assigned to a box: each one inside a box takes part in its loss, with a weight that is learned.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: AutoAssignHead,
        head_in_features: list[str] | None = None,
        positive_loss_weight: float = 0.25,
        negative_loss_weight: float = 0.75,
        center_loss_weight: float = 0.75,
        box_loss_weight: float = 5.0,
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.6,
        max_detections_per_image: int = 100,
        clip_before_nms: bool = True,
        **dense: Any,
    ):
        """
        Args:
            backbone, head_in_features: see :class:`DenseDetector`.
            head: has the centre prior.
            positive_loss_weight, negative_loss_weight, center_loss_weight: of the three losses.
            box_loss_weight: of the GIoU loss in the confidence of a location.
            test_score_thresh, test_topk_candidates, test_nms_thresh, max_detections_per_image,
                clip_before_nms: see :class:`DenseDetector`, as the further arguments ``dense``.
        """
        if not isinstance(head, AutoAssignHead):
            raise TypeError(f"head is a {type(head).__name__}, expected an AutoAssignHead")
        check_options(
            positive_loss_weight=positive_loss_weight,
            negative_loss_weight=negative_loss_weight,
            center_loss_weight=center_loss_weight,
            box_loss_weight=box_loss_weight,
        )
        levels, strides = pyramid_levels(backbone, head_in_features)
        super().__init__(
            backbone=backbone,
            head=head,
            head_in_features=levels,
            # A point is a square of the stride's size around it.
            anchor_generator=DefaultAnchorGenerator(
                sizes=[[stride] for stride in strides],
                aspect_ratios=[1.0],
                strides=strides,
                offset=0.0,
            ),
            box2box_transform=DistanceCoder(),
            loss_normalizer=1.0,  # not used: there is no moving average
            loss_normalizer_momentum=0.0,
            loss_normalizer_sync=True,
            test_score_thresh=test_score_thresh,
            test_topk_candidates=test_topk_candidates,
            test_nms_thresh=test_nms_thresh,
            max_detections_per_image=max_detections_per_image,
            clip_before_nms=clip_before_nms,
            **dense,
        )
        self.positive_loss_weight = positive_loss_weight
        self.negative_loss_weight = negative_loss_weight
        self.center_loss_weight = center_loss_weight
        self.box_loss_weight = box_loss_weight

    def assign(self, dense: DensePass, ground_truth: list[Instances]) -> tuple[Tensor, Tensor]:
        """Labels and boxes for distillation methods; the losses of AutoAssign do not read them.

        AutoAssign has no hard assignment. Here a location inside a box is foreground, with the
        smallest such box (the first of equal ones), whatever its level; all others are background.
        """
        priors = torch.cat(dense.priors)
        labels, boxes = [], []
        for instances in ground_truth:
            label = priors.new_full((len(priors),), self.num_classes, dtype=torch.int64)
            box = torch.zeros_like(priors)
            if len(instances) > 0:
                inside = points_inside(priors, instances.gt_boxes.tensor)  # (R, M)
                areas = instances.gt_boxes.area().expand_as(inside)
                smallest, matched = areas.masked_fill(~inside, float("inf")).min(dim=1)
                found = smallest.isfinite()
                label[found] = instances.gt_classes[matched[found]]
                box[found] = instances.gt_boxes.tensor[matched[found]]
            labels.append(label)
            boxes.append(box)
        return torch.stack(labels), torch.stack(boxes)

    def targets(self, dense: DensePass, ground_truth: list[Instances]) -> AutoAssignTargets:
        """See :meth:`assign`; the normaliser is that of ``loss_pos``: the number of boxes, averaged
        over processes, of at least 1."""
        with torch.no_grad():
            labels, boxes = self.assign(dense, ground_truth)
            count = boxes.new_tensor(float(sum(len(instances) for instances in ground_truth)))
            normalizer = at_least(mean_over_processes(count), 1)
        targets = AutoAssignTargets(
            labels, boxes, self.num_classes, normalizer, ground_truth=ground_truth
        )
        self.log_positives(targets)
        return targets

    def targets_of_batch(self, dense: DensePass, ground_truth: list[Instances]) -> Targets:
        """As of any detector; its normaliser is that of the batch anyway."""
        return self._targets_aside(dense, ground_truth)

    def losses(self, dense: DensePass, targets: Targets) -> dict[str, Tensor]:
        """``loss_pos``, ``loss_neg`` and ``loss_center``.

        With the class score s and the objectness o of location i, q = s * o, and G of
        :class:`CenterPrior` inside a box and 0 elsewhere:

        * ``loss_pos``: :func:`positive_loss` by the number of boxes.
        * ``loss_neg``: :func:`negative_loss` by the sum of G.
        * ``loss_center``: the number of boxes by the sum of G of their image, averaged over images.
          It keeps G from vanishing. An image without a location in a box has none.

        The divisors of the first two are averages over processes, without gradient, of at least 1.
        """
        if not isinstance(targets, AutoAssignTargets):
            raise TypeError(
                f"targets is a {type(targets).__name__}, expected the AutoAssignTargets of "
                "AutoAssign.targets, which hold the ground truth"
            )
        assert dense.quality is not None
        with full_precision(self.device):
            logits = torch.cat(dense.logits, dim=1)  # (N, R, K)
            objectness = torch.cat(dense.quality, dim=1)  # (N, R)
            deltas = torch.cat(dense.deltas, dim=1)  # (N, R, 4)
            priors = torch.cat(dense.priors)  # (R, 4)
            boxes = self.decode(deltas, priors.expand_as(deltas))  # (N, R, 4)
            positive, negative, prior, center = [], [], [], []
            for index, instances in enumerate(targets.ground_truth):
                pairs = Pairs.find(priors, instances)
                log_prior = self.log_prior(priors, pairs)  # (P,)
                log_confidence = self.log_confidence(
                    logits[index], objectness[index], boxes[index], pairs
                )
                weights = negative_weights(boxes[index], instances.gt_boxes, pairs, logits.shape[2])
                positive.append(
                    positive_loss(log_confidence, log_prior, pairs.objects, len(instances))
                )
                negative.append(negative_loss(logits[index], objectness[index, :, None], weights))
                prior.append(log_prior.exp().sum())
                count = len(instances) if len(pairs.points) > 0 else 0
                center.append(count / prior[-1].clamp(min=EPS))
            total_prior = at_least(mean_over_processes(torch.stack(prior).sum()), 1)
            loss_positive = torch.stack(positive).sum() / targets.normalizer
            loss_negative = torch.stack(negative).sum() / total_prior
            loss_center = torch.stack(center).mean()
        return {
            "loss_pos": self.positive_loss_weight * loss_positive,
            "loss_neg": self.negative_loss_weight * loss_negative,
            "loss_center": self.center_loss_weight * loss_center,
        }

    def log_prior(self, priors: Tensor, pairs: Pairs) -> Tensor:
        """(P,): logarithm of the centre prior G of pairs of ``priors`` (R, 4) and boxes."""
        prior = priors[pairs.points]
        centers, strides = (prior[:, :2] + prior[:, 2:]) / 2, prior[:, 2:] - prior[:, :2]
        of_boxes = (pairs.boxes[:, :2] + pairs.boxes[:, 2:]) / 2
        return self.head.center_prior((centers - of_boxes) / strides, pairs.classes)

    def log_confidence(
        self, logits: Tensor, objectness: Tensor, boxes: Tensor, pairs: Pairs
    ) -> Tensor:
        """(P,): log of s_c * o * exp(-box_loss_weight * (1 - GIoU)) for the class c of the box.

        Args:
            logits: (R, K).
            objectness: (R,), logits.
            boxes: (R, 4), predicted.
            pairs: of the locations and the boxes they are in.
        """
        score = logits[pairs.points, pairs.classes]  # (P,), a logit
        overlap = elementwise_giou(boxes[pairs.points], pairs.boxes)
        log_score = F.logsigmoid(score) + F.logsigmoid(objectness[pairs.points])
        return log_score - self.box_loss_weight * (1 - overlap)

    def detection_scores(self, dense: DensePass) -> tuple[list[Tensor], list[Tensor] | None]:
        """Class scores, and the objectness they are multiplied with once they are selected."""
        assert dense.quality is not None
        scores = [logits.sigmoid() for logits in dense.logits]
        return scores, [quality.sigmoid() for quality in dense.quality]
