"""What the imitation baselines have in common: one squared error in every cell, and means of it.

Each baseline compares the input of the teacher's head with that of the student's after an adapter f
(a convolution per level, trained, and not part of the student):

    e = sum over the C channels of (F_t - f(F_s))^2

Sums and means over cells are over all images of this process. So with gradients that are averaged
over processes the split of a batch matters.
"""

from __future__ import annotations

from torch import Tensor, nn

from ...detectors.base.dense import DenseDetector
from ...normalizers import at_least
from ...outputs import DensePass, sums_of_levels
from ..base import KDMethod, Needs
from ..base.adapters import pyramid_adapters, squared_errors


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

    def errors(self, student: DensePass, teacher: DensePass) -> Tensor:
        """e, (N, P) of the P cells of all levels, with gradient to the student and the adapters."""
        return squared_errors(student, teacher, self.adapters, relu=self.relu)


def level_sizes(dense: DensePass) -> list[int]:
    """L numbers of cells Hl*Wl, whose sum is P."""
    return [size.numel() for size in dense.map_sizes]


def sum_of_means(errors: Tensor, masks: Tensor, sizes: list[int], channels: int) -> Tensor:
    """The mean over the channels of the cells of a mask, on each level (0 without cells); the sum
    of these.

    Args:
        errors: (N, P), sums over the channels.
        masks: (N, P), bool or in [0, 1].
        sizes: of the levels, see :func:`level_sizes`.
        channels: C.

    Returns:
        scalar
    """
    masks = masks.float()
    return (masks / at_least(channels * sums_of_levels(masks, sizes), 1) * errors).sum()
