"""FKD: "Improve Object Detection with Feature-based Knowledge Distillation" (Zhang and Ma, ICLR
2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..detectors.base.dense import DenseDetector
from ..lengths import zip_equal
from ..options import check_positive
from ..outputs import DensePass
from .base import KDMethod, Needs, Step
from .base.adapters import pyramid_channels
from .base.attention import spatial_attention
from .base.batch_size import growth_warning
from .base.non_local import NonLocal

TERMS = ("feature", "channel", "spatial", "nonlocal")
POOLING = (8, 4, 2, 2)
"""Of the keys of the non-local blocks, on the first levels; on all further ones 2 (ours)."""


class FKD(KDMethod):
    """Attention-guided and non-local distillation of the pyramid.

    With features F_s and F_t of C channels on a level of H x W cells, their attention

        m = H W softmax over the cells of (mean over the channels of |F|) / temperature

    of which the mean of m_s and m_t is taken, means p over the cells (C) and q over the channels
    (H, W), non-local blocks G_s and G_t, and norms ||.|| over the whole batch of this process, the
    losses are the sums over the levels of

        loss_feature  = feature_weight  * || sqrt((m_s + m_t) / 2) (F_t - f(F_s)) ||
        loss_channel  = channel_weight  * || p_t - linear(p_s) ||
        loss_spatial  = spatial_weight  * || q_t - conv3x3(q_s) ||
        loss_nonlocal = nonlocal_weight * || G_t(F_t) - conv1x1(G_s(F_s)) ||

    f is a 1x1 convolution (ours); the blocks, also the teacher's, are trained. None is part of the
    student. m carries no gradient.

    The authors' code is not public; weights, temperature and the attention without that of the
    channels are those of MMRazor's port for Faster R-CNN. The paper has other weights for one-stage
    detectors, which we could not check. The norms are not squared, so the loss depends on how a
    batch is split over processes: it grows with the root of the number of images per process, of
    which MMRazor's run has 2. With another number the run says so once.

    In a training step the tensors of the losses take, at their peak, 3.6 times the memory of the
    maps that are compared (both pyramids, float32; gradients included, those of the layers not).
    """

    needs = Needs(same_levels=True, predictions=False)

    def __init__(
        self,
        *,
        feature_weight: float = 7e-5,
        channel_weight: float = 4e-3,
        spatial_weight: float = 4e-3,
        nonlocal_weight: float = 7e-5,
        temperature: float = 0.5,
        warmup_iters: int = 0,
    ):
        """
        Args:
            feature_weight, channel_weight, spatial_weight, nonlocal_weight: of the terms, above 0.
            temperature: of the attention.
            warmup_iters: see :class:`KDMethod`.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_positive(
            feature_weight=feature_weight,
            channel_weight=channel_weight,
            spatial_weight=spatial_weight,
            nonlocal_weight=nonlocal_weight,
            temperature=temperature,
        )
        self.feature_weight = feature_weight
        self.channel_weight = channel_weight
        self.spatial_weight = spatial_weight
        self.nonlocal_weight = nonlocal_weight
        self.temperature = temperature

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Make the trained parts of all levels, see :meth:`make_layers`."""
        super().prepare(student, teacher)
        widths = pyramid_channels(student), pyramid_channels(teacher)
        self.make_layers(len(student.strides), *widths)
        self.to(student.device)

    def make_layers(self, levels: int, channels: int, teacher_channels: int) -> None:
        """The trained parts for L levels of features of those widths."""
        pooling = [*POOLING, *[2] * levels][:levels]
        self.levels = nn.ModuleList(LevelNorms(channels, teacher_channels, p) for p in pooling)

    def images_warning(self, images: int) -> str | None:
        """That its norms grow with the root of the number of images."""
        growing = "norms over the images"
        return growth_warning(growing, images, "divide its weights by that", exponent=0.5)

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_feature``, ``loss_channel``, ``loss_spatial`` and ``loss_nonlocal``."""
        norms = [
            torch.stack(level(ours.float(), theirs.detach().float(), self.temperature))
            for level, ours, theirs in zip_equal(
                levels=self.levels, student=student.features, teacher=teacher.features
            )
        ]  # L x (4,)
        return {
            f"loss_{name}": getattr(self, f"{name}_weight") * norm
            for name, norm in zip(TERMS, torch.stack(norms).sum(dim=0))
        }


class LevelNorms(nn.Module):
    """The norms of :class:`FKD` on one level, and the layers that are trained for them."""

    def __init__(self, channels: int, teacher_channels: int, pooling: int):
        """
        Args:
            channels, teacher_channels: widths of the features.
            pooling: of the non-local blocks.
        """
        super().__init__()
        self.feature = nn.Conv2d(channels, teacher_channels, kernel_size=1)
        self.channel = nn.Linear(channels, teacher_channels)
        self.spatial = nn.Conv2d(1, 1, kernel_size=3, padding=1)
        self.relation = nn.Conv2d(channels, teacher_channels, kernel_size=1)
        self.student_block = NonLocal(channels, pooling)
        self.teacher_block = NonLocal(teacher_channels, pooling)

    def forward(self, student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, ...]:
        """Scalars in the order of :data:`TERMS`.

        Args:
            student: (N, C, Hl, Wl).
            teacher: (N, C', Hl, Wl).
            temperature: of the attention.
        """
        with torch.no_grad():
            attention = spatial_attention(student, temperature)  # (N, Hl, Wl)
            attention = (attention + spatial_attention(teacher, temperature))[:, None] / 2
        differences = (
            attention.sqrt() * (teacher - self.feature(student)),
            teacher.mean(dim=(2, 3)) - self.channel(student.mean(dim=(2, 3))),
            teacher.mean(dim=1, keepdim=True) - self.spatial(student.mean(dim=1, keepdim=True)),
            self.teacher_block(teacher, teacher)
            - self.relation(self.student_block(student, student)),
        )
        return tuple(torch.linalg.vector_norm(difference) for difference in differences)
