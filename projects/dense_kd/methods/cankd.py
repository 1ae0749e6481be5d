"""CanKD: "CanKD: Cross-Attention-based Non-local operation for Feature-based Knowledge
Distillation" (Sun and Ohyama, WACV 2026)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..detectors.base.dense import DenseDetector
from ..lengths import zip_equal
from ..options import check_positive
from ..outputs import DensePass
from .base import KDMethod, Needs, Step
from .base.adapters import WidthAdapters, comparable_maps, pyramid_channels
from .base.levels import checked_omissions, remaining_levels
from .base.non_local import NonLocal


class CanKD(KDMethod):
    """Each cell of the student attends to all cells of the teacher before the two are compared.

    On a level of P cells, with s the student's and t the teacher's map (C, P), theta, phi and g
    convolutions 1x1 to C / 2 channels, phi and g followed by a maximum over 2 x 2 cells, which
    leaves P' cells, W a convolution 1x1 back to C channels, and BN a batch norm,

        a = g(t) phi(t)^T theta(s) / P'
        z = s + BN(W a)
        loss_feature = weight * sum_l 1/2 mean_{n,c,h,w} (IN(z) - IN(t))^2

    IN gives each channel of each image mean 0 and variance 1 over its cells. The factor of BN
    starts at 0, so that z starts as s. The paper's attention of each cell is phi(t)^T theta(s) / P'
    without a softmax, so the product of g and phi, of C / 2 x C / 2 numbers, may come first: that
    is equal but for rounding, and the cost is linear in the cells. On P3 of an image of 800 x 1344
    these products take 0.69 GFLOP and 66 kB, those of all pairs of cells 36.1 GFLOP and 282 MB.

    ==================== ====== ===========================================================
    student              weight further
    ==================== ====== ===========================================================
    RetinaNet, FCOS      10     ``omitted_levels=(-1,)``: P7 is left out; 2x, gradients
                                clipped at norm 35
    ==================== ====== ===========================================================

    The paper calls the weight 5, of the mean without the 1/2. Its variant with a dagger starts with
    the teacher's FPN and head (``init_student`` of the Distiller).

    Convolutions and norms, and the 1x1 convolutions on the student's features where the widths
    differ (ours), are trained with the student and not part of it. On a level of one cell IN is 0,
    and so is the loss.

    BN has the statistics of the batch of this process: with gradients that are averaged over
    processes the split of a batch matters, and with accumulated batches, too. Padding counts as any
    cell.

    In a training step the tensors of the loss take, at their peak, 3.9 times the memory of the maps
    that are compared (both pyramids, float32; gradients included, those of the blocks not).
    """

    needs = Needs(same_levels=True, predictions=False)

    def __init__(
        self,
        *,
        weight: float = 10.0,
        omitted_levels: Sequence[int] = (),
        warmup_iters: int = 0,
    ):
        """
        Args:
            weight: of the loss.
            omitted_levels: numbers of levels that are not compared, 0 the finest and -1 the
                coarsest.
            warmup_iters: see :class:`KDMethod`.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_positive(weight=weight)
        self.weight = weight
        self.omitted_levels = checked_omissions(omitted_levels)

    def check(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Also the levels that are left out."""
        super().check(student, teacher)
        remaining_levels(len(student.strides), self.omitted_levels)

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Choose the levels that are compared, and make their adapters and blocks."""
        super().prepare(student, teacher)
        self.levels = remaining_levels(len(student.strides), self.omitted_levels)
        width = pyramid_channels(teacher)
        self.adapters = WidthAdapters(len(self.levels), pyramid_channels(student), width)
        self.blocks = nn.ModuleList(NonLocal(width, pooling=2, reduction=2) for _ in self.levels)
        self.to(student.device)

    def unlike_one_batch(self) -> str | None:
        """Its blocks normalise over the batch."""
        return "it has means and deviations of features over the batch"

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_feature``."""
        ours, theirs = (
            [dense.features[level] for level in self.levels] for dense in (student, teacher)
        )
        maps = list(comparable_maps(ours, theirs, self.adapters))
        losses = [
            F.mse_loss(instance_normalized(block(s, t)), instance_normalized(t))
            for block, (s, t) in zip_equal(blocks=self.blocks, maps=maps)
        ]
        return {"loss_feature": self.weight * torch.stack(losses).sum() / 2}


def instance_normalized(feature: Tensor) -> Tensor:
    """Each channel of each image with mean 0 and variance 1 over its cells.

    Args:
        feature: (N, C, H, W); a map of one cell becomes 0.
    """
    return F.layer_norm(feature, feature.shape[2:])  # F.instance_norm refuses one cell
