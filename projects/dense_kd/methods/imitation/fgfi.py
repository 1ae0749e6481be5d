"""FGFI: fine-grained feature imitation (Wang et al., CVPR 2019).

Means are over all images of this process: the split of a batch matters, see :mod:`.features`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...options import check_choices, check_flags, check_parts, check_positive
from ...outputs import DensePass
from ..base import Needs, Step
from ..base.objects import stacked_boxes
from .features import FeatureImitation, level_sizes, sum_of_means
from .masks import near_object_masks, object_levels

FGFI_LEVELS = ("assigned", "each")
FGFI_NORMALIZERS = ("elements", "cells")


class FGFI(FeatureImitation):
    """Fine-grained feature imitation (Wang et al., "Distilling Object Detectors with Fine-grained
    Feature Imitation", CVPR 2019): cells near objects.

        loss_feature = weight * mean over levels of sum m e / max(1, 2 C sum m)

    with m = 1 in cells that have an anchor whose IoU with an object exceeds ``part`` of the level's
    best one, see :func:`near_object_masks`. The adapter is a 3x3 convolution.

    The defaults are those of DeFeat's code for pyramids: an object counts on one level, by its
    size, and the weight is 3. The authors' own code is for the one map of a VGG Faster R-CNN:
    ``weight=0.01, levels="each", normalize="cells", relu=True`` (that map is not negative;
    a pyramid's is). LD's baseline is ``levels="each"`` with a weight of 4 L on L levels. Nothing is
    imitated in the first ``warmup_iters=400`` iterations (authors' code).

    In a training step the tensors of the loss take, at their peak, 1.7 times the memory of the maps
    that are compared (both pyramids, float32; gradients included, those of the adapters not).
    The masks of 500 objects in an image of 800 x 1344 with nine anchors per location take 72 MiB.
    """

    needs = Needs(same_levels=True, ground_truth=True, predictions=False)
    kernel_size = 3
    initial_deviation = 1e-4

    def __init__(
        self,
        *,
        weight: float = 3.0,
        part: float = 0.5,
        levels: str = "assigned",
        normalize: str = "elements",
        relu: bool = False,
        warmup_iters: int = 400,
    ):
        """
        Args:
            weight: above 0.
            part: of the largest IoU, in [0, 1).
            levels: of an object: "assigned", see :func:`object_levels`, or "each".
            normalize: "elements" as above, or "cells": without C.
            relu: after the adapters.
            warmup_iters: iterations without this loss.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_choices(("levels", levels, FGFI_LEVELS), ("normalize", normalize, FGFI_NORMALIZERS))
        check_parts(part=part)
        check_flags(relu=relu)
        check_positive(weight=weight)
        self.weight = weight
        self.part = part
        self.levels = levels
        self.normalize = normalize
        self.relu = relu

    def warmup_factor(self, iteration: int) -> float:
        """0 before ``warmup_iters``, then 1."""
        return float(iteration >= self.warmup_iters)

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_feature``."""
        boxes = stacked_boxes([truth.gt_boxes.tensor for truth in step.ground_truth])
        levels = object_levels(boxes, student.strides) if self.levels == "assigned" else None
        masks = near_object_masks(student.priors, student.num_anchors, boxes, levels, self.part)
        channels = teacher.features[0].shape[1] if self.normalize == "elements" else 1
        loss = sum_of_means(
            self.errors(student, teacher),
            torch.cat(masks, dim=-1),
            level_sizes(student),
            2 * channels,
        )
        return {"loss_feature": self.weight / len(masks) * loss}
