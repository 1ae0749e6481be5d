"""FitNets (Romero et al., ICLR 2015), on the pyramid.

Means are over all images of this process: the split of a batch matters, see :mod:`.features`,
except on all cells of images that are padded to one size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...options import check_choices, check_flags, check_positive
from ...outputs import DensePass
from ..base import Needs, Step
from ..base.objects import stacked_boxes
from .features import FeatureImitation, level_sizes, sum_of_means
from .masks import object_masks

FITNET_REGIONS = ("all", "objects", "positives")


class FitNet(FeatureImitation):
    """FitNets (Romero et al., ICLR 2015) on the pyramid: all cells alike.

        loss_feature = weight * sum_l mean of e / C over the cells of level l

    As LD's code has it for its tables, with ``weight=2``. Its own default is
    ``region="objects"``: only cells whose centre is in an object, "Inside GT Box" in its tables and
    CrossKD's. "Main Region" there is ``region="positives"``: cells with a positive of the student.
    The adapter is a 1x1 convolution where the widths differ, and nothing where they are equal.

    In a training step the tensors of the loss take, at their peak, 0.5 times the memory of the maps
    that are compared (both pyramids, float32; gradients included).
    """

    always_adapts = False

    def __init__(
        self,
        *,
        weight: float = 2.0,
        region: str = "all",
        always_adapt: bool = False,
        warmup_iters: int = 0,
    ):
        """
        Args:
            weight: above 0.
            region: "all", "objects" or "positives".
            always_adapt: have the convolutions also between equal widths.
            warmup_iters: see :class:`dense_kd.KDMethod`.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_choices(("region", region, FITNET_REGIONS))
        check_flags(always_adapt=always_adapt)
        check_positive(weight=weight)
        self.weight = weight
        self.needs = Needs(same_levels=True, ground_truth=region != "all", predictions=False)
        self.region = region
        self.always_adapts = always_adapt

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_feature``."""
        errors = self.errors(student, teacher)  # (N, P)
        loss = sum_of_means(
            errors,
            self._mask(student, step, errors),
            level_sizes(student),
            teacher.features[0].shape[1],
        )
        return {"loss_feature": self.weight * loss}

    def _mask(self, student: DensePass, step: Step, errors: Tensor) -> Tensor:
        """(N, P) of numbers, or bool."""
        if self.region == "objects":
            boxes = stacked_boxes([truth.gt_boxes.tensor for truth in step.ground_truth])
            return torch.cat(object_masks(student.priors, student.num_anchors, boxes), dim=-1)
        if self.region == "positives":
            return step.targets.foreground.unflatten(1, (-1, student.num_anchors)).any(dim=2)
        return torch.ones_like(errors)
