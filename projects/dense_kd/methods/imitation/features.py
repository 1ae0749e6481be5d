"""What the imitation baselines have in common: one squared error in every cell, and means of it.

Each baseline compares the input of the teacher's head with that of the student's after an adapter f
(a convolution per level, trained, and not part of the student):

    e = sum over the C channels of (F_t - f(F_s))^2

Sums and means over cells are over all images of this process. So with gradients that are averaged
over processes the split of a batch matters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...detectors.base.dense import DenseDetector
from ...lengths import zip_equal
from ...outputs import DensePass
from ..base import KDMethod, Needs
from ..base.adapters import comparable_features, pyramid_adapters


class FeatureImitation(KDMethod):
    """What the baselines have in common: the adapters and the error of a cell."""

    needs = Needs(same_levels=True, predictions=False)
    kernel_size = 1
    always_adapts = True
    """Whether there are adapters also between equal widths."""
    initial_deviation: float | None = None
    """Standard deviation of the adapters' weights at the start; None is PyTorch's."""
    relu = False
    """Whether a ReLU follows the adapters."""
    adapters: nn.ModuleList
    """One for each level, made by :meth:`prepare`."""

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Make the adapters, with their initial weights."""
        super().prepare(student, teacher)
        self.adapters = pyramid_adapters(
            student, teacher, kernel_size=self.kernel_size, always=self.always_adapts
        )
        for module in self.adapters.modules():
            if isinstance(module, nn.Conv2d) and self.initial_deviation is not None:
                weight, bias = module.parameters()
                nn.init.normal_(weight, std=self.initial_deviation)
                nn.init.zeros_(bias)

    def errors(self, student: DensePass, teacher: DensePass) -> list[Tensor]:
        """e, L x (N, Hl*Wl), with gradient to the student and the adapters."""
        return [
            (theirs - (ours.relu() if self.relu else ours)).pow(2).sum(dim=1).flatten(1)
            for ours, theirs in comparable_features(student, teacher, self.adapters)
        ]


def stacked(masks: list[list[Tensor]]) -> list[Tensor]:
    """L x (N, Hl*Wl), numbers, of N x L x (Hl*Wl,)."""
    return [torch.stack(levels).float() for levels in zip(*masks)]


def masked_means(errors: list[Tensor], masks: list[Tensor], channels: int) -> list[Tensor]:
    """L scalars: the mean over the channels of the cells of each mask; 0 without cells."""
    return [
        (mask * error).sum() / (channels * mask.sum()).clamp(min=1)
        for error, mask in zip_equal(errors=errors, masks=masks)
    ]
