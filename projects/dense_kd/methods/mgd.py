"""MGD: "Masked Generative Distillation" (Yang et al., ECCV 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..detectors.base.dense import DenseDetector
from ..lengths import check_equal_lengths
from ..options import check_parts, check_positive
from ..outputs import DensePass
from .base import KDMethod, Needs, Step
from .base.adapters import comparable_features, pyramid_adapters, pyramid_channels


class MGD(KDMethod):
    """The teacher's pyramid is generated from that of the student, of which cells are masked out.

    With M_l (N, 1, Hl, Wl), which is 0 with probability ``masked_ratio`` and 1 otherwise, drawn
    anew for every image, level and iteration and equal for all channels of a cell, and a generator
    G_l = conv3x3(ReLU(conv3x3(x))) per level,

        loss_feature = weight * sum_l 1/N sum_{n,c,h,w} (G_l(M_l * s_l) - t_l)^2

    It is a sum over channels and cells, so ``weight`` is for images of
    the usual size (800 x 1333 pixels) and 256 channels, and has to be larger for smaller ones.
    The paper masks where a uniform number is below the ratio, the released code where it is above
    one minus the ratio, as here; the probability is the same.

    Generators, and the 1x1 convolutions on the student's features where the widths differ, are
    trained with the student and not part of it.

    ===================== ====== ============ ====================================================
    student               weight masked_ratio further
    ===================== ====== ============ ====================================================
    RetinaNet, RepPoints  2e-5   0.65         2x, gradients clipped at norm 35, ``init_student``
    two-stage             5e-7   0.45
    ===================== ====== ============ ====================================================

    Images are compared one by one, so with gradients that are averaged over processes the split
    of a batch does not matter, but for the masks, which come from the generator of random numbers
    of each process, and for the padding, which counts as any cell.

    In a training step the tensors of the loss take, at their peak, 2.4 times the memory of the maps
    that are compared (both pyramids, float32; gradients included, those of the generators not).
    """

    needs = Needs(same_levels=True, predictions=False)

    def __init__(
        self,
        *,
        weight: float = 2e-5,
        masked_ratio: float = 0.65,
        warmup_iters: int = 0,
    ):
        """
        Args:
            weight: of the loss, the paper's alpha.
            masked_ratio: probability that a cell is masked out, at least 0 and below 1; the
                paper's lambda.
            warmup_iters: see :class:`KDMethod`.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_positive(weight=weight)
        check_parts(masked_ratio=masked_ratio)
        self.weight = weight
        self.masked_ratio = masked_ratio

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Make the adapters and the generators of all levels."""
        super().prepare(student, teacher)
        self.adapters = pyramid_adapters(student, teacher)
        width = pyramid_channels(teacher)
        self.generators = nn.ModuleList(_generator(width) for _ in student.strides)
        self.generators.to(student.device)

    def draw(self, feature: Tensor) -> Tensor:
        """(N, 1, Hl, Wl) uniform random numbers in [0, 1) for ``feature`` (N, C, Hl, Wl)."""
        return torch.rand_like(feature[:, :1].detach())

    def kept(self, random: Tensor) -> Tensor:
        """The mask M that uniform numbers in [0, 1) stand for: 0 where a cell is masked out.

        Args:
            random: any shape, as :meth:`draw` gives it.
        """
        return (random <= 1 - self.masked_ratio).to(random.dtype)

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_feature``."""
        losses = []
        features = comparable_features(student, teacher, self.adapters)
        check_equal_lengths(generators=self.generators, features=student.features)
        for generator, (ours, theirs) in zip(self.generators, features):
            generated = generator(self.kept(self.draw(ours)) * ours)  # (N, C, Hl, Wl)
            losses.append(F.mse_loss(generated, theirs, reduction="sum") / len(ours))
        return {"loss_feature": self.weight * torch.stack(losses).sum()}


def _generator(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
    )
