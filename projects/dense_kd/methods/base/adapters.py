"""What lets features of student and teacher be compared where their widths differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...detectors.base.dense import DenseDetector
from ...lengths import zip_equal
from ...outputs import DensePass, Tap


def pyramid_channels(detector: DenseDetector) -> int:
    """C of ``DensePass.features``."""
    return detector.head.tower_channels[0]


class WidthAdapters(nn.ModuleList):
    """A convolution per level that takes features of the student to the teacher's width.

    They are trained with the student and not part of it. Where the widths are equal, nothing is
    done and there are no parameters, unless ``always``.
    """

    def __init__(
        self,
        num_levels: int,
        student_channels: int,
        teacher_channels: int,
        *,
        kernel_size: int = 1,
        always: bool = False,
    ):
        """
        Args:
            num_levels: L.
            student_channels, teacher_channels: widths of the features.
            kernel_size: of the convolutions, odd; they keep the size of a map.
            always: have them also where the widths are equal.
        """
        needed = always or student_channels != teacher_channels
        super().__init__(
            nn.Conv2d(student_channels, teacher_channels, kernel_size, padding=kernel_size // 2)
            if needed
            else nn.Identity()
            for _ in range(num_levels)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """L x (N, C, Hl, Wl) of the student at the teacher's width."""
        return [
            adapter(feature) for adapter, feature in zip_equal(adapters=self, features=features)
        ]


def pyramid_adapters(
    student: DenseDetector, teacher: DenseDetector, **options: Any
) -> WidthAdapters:
    """Adapters of the pyramids of two detectors, on the student's device.

    Args:
        student, teacher: detectors.
        options: of :class:`WidthAdapters`.
    """
    widths = pyramid_channels(student), pyramid_channels(teacher)
    return WidthAdapters(len(student.strides), *widths, **options).to(student.device)


def tower_adapters(
    student: DenseDetector, teacher: DenseDetector, levels: int, taps: Sequence[Tap]
) -> nn.ModuleList:
    """Adapters of tower features of two detectors, of one tap after the other.

    Args:
        student, teacher: detectors.
        levels: how many of each tap.
        taps: whose features are compared; depth 0 is the pyramid.
    """
    adapters = nn.ModuleList()
    for _, depth in taps:
        widths = (detector.head.tower_channels[depth] for detector in (student, teacher))
        adapters.extend(WidthAdapters(levels, *widths))
    return adapters.to(student.device)


def comparable_features(
    student: DensePass, teacher: DensePass, adapters: nn.ModuleList
) -> Iterator[tuple[Tensor, Tensor]]:
    """The pyramids of both, level by level, as losses compare them, see :func:`comparable_maps`."""
    return comparable_maps(student.features, teacher.features, adapters)


def comparable_maps(
    student: list[Tensor], teacher: list[Tensor], adapters: nn.ModuleList
) -> Iterator[tuple[Tensor, Tensor]]:
    """Maps of both as losses compare them: in float32.

    Args:
        student, teacher: of the same batch, equally many.
        adapters: one for each.

    Yields:
        the student's (N, C, Hl, Wl) after its adapter, and the teacher's (N, C, H'l, W'l), to
        which no gradient goes.
    """
    for adapter, ours, theirs in zip_equal(adapters=adapters, student=student, teacher=teacher):
        yield adapter(ours.float()), theirs.detach().float()


def squared_errors(
    student: DensePass, teacher: DensePass, adapters: nn.ModuleList, *, relu: bool = False
) -> Tensor:
    """The squared differences of the pyramids, summed over the channels.

    Args:
        student, teacher: passes over a batch.
        adapters: of the levels.
        relu: of the student's maps, after the adapters.

    Returns:
        (N, P) of the P cells of all levels, with gradient to the student and the adapters.
    """
    errors = [
        F.mse_loss(ours.relu() if relu else ours, theirs, reduction="none").sum(dim=1).flatten(1)
        for ours, theirs in comparable_features(student, teacher, adapters)
    ]
    return torch.cat(errors, dim=1)
