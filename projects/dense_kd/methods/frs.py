"""FRS: "Distilling Object Detectors with Feature Richness" (Du et al., NeurIPS 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..detectors.base.dense import DenseDetector
from ..losses import quality_focal_loss
from ..normalizers import at_least
from ..options import check_weights
from ..outputs import DensePass, sums_of_levels
from .base import Needs, Step
from .base.class_maps import ClassMap
from .imitation.features import FeatureImitation, level_sizes


class FRS(FeatureImitation):
    """Feature-richness scores: cells count as much as the teacher sees something in them.

    With e and the adapters of :class:`FeatureImitation` (3x3 convolutions),

        loss_feature = feature_weight * sum_l sum m e / sum m
        loss_cls     = cls_weight     * sum_l sum m sum_k BCE(sig(s_k), sig(t_k)) / sum m

    with m the teacher's largest class score in a cell. The sums are over the channels, over all
    anchors of a cell, and over the images of this process, so with gradients that are averaged over
    processes the split of a batch matters. Both terms rise over the first 500 iterations. Released
    weights: GFL 0.1 and 0.05, RetinaNet 0.005 and 0.02, FCOS 0.01 and 0.05.

    In a training step the tensors of the losses take, at their peak, 3.7 times the memory of both
    pyramids (float32; gradients included, those of the adapters not), with nine anchors per
    location, whose logits are compared, too; with one it is 1.8.
    """

    kernel_size = 3

    def __init__(
        self,
        *,
        feature_weight: float = 0.1,
        cls_weight: float = 0.05,
        class_map: ClassMap = None,
        warmup_iters: int = 500,
    ):
        """
        Args:
            feature_weight, cls_weight: of the terms; 0 leaves a term out.
            class_map: which classes correspond, where those of student and teacher differ, see
                :data:`ClassMap`; of no concern with ``cls_weight=0``.
            warmup_iters: see :class:`dense_kd.KDMethod`.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_weights(feature_weight=feature_weight, cls_weight=cls_weight)
        self.needs = Needs(
            same_levels=True,
            same_priors=cls_weight > 0,
            same_classes=cls_weight > 0,
            features=feature_weight > 0,
        )
        self.feature_weight = feature_weight
        self.cls_weight = cls_weight
        self.class_map = class_map

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Make the adapters, if there is a feature term."""
        super().prepare(student, teacher)
        if self.feature_weight == 0:  # parameters without a gradient would stop DDP
            self.adapters = nn.ModuleList()

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_feature`` and ``loss_cls``, those of them whose weight is not 0."""
        with torch.no_grad():
            best = torch.cat([logits.amax(dim=2) for logits in teacher.logits], dim=1)  # (N, R)
            weights = best.sigmoid().unflatten(1, (-1, teacher.num_anchors)).amax(dim=2)  # (N, P)
            # Scores may vanish altogether.
            weights = weights / at_least(sums_of_levels(weights, level_sizes(teacher)), 1e-6)
        losses = {}
        if self.feature_weight > 0:
            loss = (weights * self.errors(student, teacher)).sum()
            losses["loss_feature"] = self.feature_weight * loss
        if self.cls_weight > 0:
            entropies = [
                quality_focal_loss(ours, theirs.sigmoid(), beta=0.0)
                for ours, theirs in zip(*self.comparable_levels(student, teacher))
            ]  # L x (N, Hl*Wl*A)
            entropy = torch.cat(entropies, dim=1).unflatten(1, (-1, teacher.num_anchors))
            losses["loss_cls"] = self.cls_weight * (weights * entropy.sum(dim=2)).sum()
        return losses
