"""DeFeat: decoupled features (Guo et al., CVPR 2021).

Means are over all images of this process: the split of a batch matters, see :mod:`.features`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...options import check_weights
from ...outputs import DensePass
from ..base import Needs, Step
from ..base.objects import stacked_boxes
from .features import FeatureImitation, level_sizes, sum_of_means
from .masks import box_masks


class DeFeat(FeatureImitation):
    """Decoupled features (Guo et al., "Distilling Object Detectors via Decoupled Features", CVPR
    2021): objects and background with weights of their own.

        loss_object     = object_weight     * mean over levels of sum m e / max(1, 2 C sum m)
        loss_background = background_weight * the same with 1 - m

    with m = 1 in the cells of an object on the one level for its size, see :func:`box_masks`. The
    adapter is a 3x3 convolution. The weights 4 and 16 are the author's for COCO; the released
    config, for VOC, has 3 and 12. Only the terms of the neck: those of the backbone and of the
    second stage's classes are for two-stage detectors.

    In a training step the tensors of the losses take, at their peak, 1.7 times the memory of the
    maps that are compared (both pyramids, float32; gradients included, those of the adapters not).
    """

    needs = Needs(same_levels=True, ground_truth=True, predictions=False)
    kernel_size = 3
    initial_deviation = 1e-4

    def __init__(
        self,
        *,
        object_weight: float = 4.0,
        background_weight: float = 16.0,
        warmup_iters: int = 0,
    ):
        """
        Args:
            object_weight, background_weight: of the terms; 0 leaves a term out.
            warmup_iters: see :class:`dense_kd.KDMethod`.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_weights(object_weight=object_weight, background_weight=background_weight)
        self.object_weight = object_weight
        self.background_weight = background_weight

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_object`` and ``loss_background``, those of them whose weight is not 0."""
        maps = [(feature.shape[-2], feature.shape[-1]) for feature in student.features]
        boxes = stacked_boxes([truth.gt_boxes.tensor for truth in step.ground_truth])
        on_objects = torch.cat(box_masks(boxes, student.strides, maps), dim=-1)  # (N, P)
        errors = self.errors(student, teacher)  # (N, P)
        sizes, channels = level_sizes(student), 2 * teacher.features[0].shape[1]
        losses = {}
        for term, weight, masks in (
            ("loss_object", self.object_weight, on_objects),
            ("loss_background", self.background_weight, ~on_objects),
        ):
            if weight > 0:
                loss = sum_of_means(errors, masks, sizes, channels)
                losses[term] = weight / len(sizes) * loss
        return losses
