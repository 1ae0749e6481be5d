"""What lets features of student and teacher be compared where their widths differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from ..detectors.dense import DenseDetector
from ..outputs import DensePass


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
        return [adapter(feature) for adapter, feature in zip(self, features)]


def pyramid_adapters(
    student: DenseDetector, teacher: DenseDetector, levels: int | None = None, **options: Any
) -> WidthAdapters:
    """Adapters of the pyramids of two detectors, on the student's device.

    Args:
        student, teacher: detectors.
        levels: how many; those of the student by default.
        options: of :class:`WidthAdapters`.
    """
    return WidthAdapters(
        len(student.strides) if levels is None else levels,
        pyramid_channels(student),
        pyramid_channels(teacher),
        **options,
    ).to(student.device)


def comparable_features(
    student: DensePass,
    teacher: DensePass,
    adapters: WidthAdapters,
    levels: Sequence[int] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The features of both, level by level, as losses compare them: in float32.

    Args:
        student, teacher: passes over the same batch.
        adapters: one for each of the levels.
        levels: which; all by default.

    Yields:
        the student's (N, C, Hl, Wl) after its adapter, and the teacher's (N, C, H'l, W'l), to
        which no gradient goes.
    """
    for adapter, level in zip(adapters, range(len(student.features)) if levels is None else levels):
        yield adapter(student.features[level].float()), teacher.features[level].detach().float()
