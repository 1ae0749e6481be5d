"""PKD: "PKD: General Distillation Framework for Object Detectors via Pearson Correlation
Coefficient" (Cao et al., NeurIPS 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..detectors.base.dense import DenseDetector
from ..options import check_choices, check_positive, check_unused, is_list
from ..outputs import DensePass, Tap
from .base import KDMethod, Needs, Step
from .base.adapters import comparable_maps, tower_adapters
from .base.levels import Levels, checked_omissions, listed, remaining_levels
from .base.statistics import standardized

RESIZED = ("student", "teacher")


class PKD(KDMethod):
    """The pyramids of both, each channel with mean 0 and deviation 1, are compared.

    With ~x = (x - mean_c) / (std_c + 1e-6), where the mean and the unbiased deviation of channel c
    are over N, Hl and Wl,

        loss_feature = weight * sum_l 1/2 mean_{n,c,h,w} (~s - ~t)^2

    which is, up to the factor (m - 1) / m of m = N * Hl * Wl cells, ``weight`` times one minus the
    Pearson correlation of student and teacher, a mean over channels. Scale and offset
    of the teacher's features do not matter, so the detectors may be of different kinds and have
    other anchors and classes. Gradient goes through the student's mean and deviation.

    ``taps`` compares features of the towers instead of the pyramids, summed over them, as CrossKD's
    Table 2 does behind the third block: GFL R50 to R18 has 38.0 AP with the pyramid, 37.5 with
    ``taps=[("cls", 3)]``, 37.2 with ``[("bbox", 3)]`` and 37.3 with both, of 35.8 without.

    Where the sizes of the maps differ, so that the strides of the pyramids may, one is resized
    bilinearly; the numbers of levels must agree. Pyramids of different width, which the released
    code refuses, get a 1x1 convolution per level on the student's features (ours); it is trained
    and not part of the student.

    ============================= ====== =====================================================
    student                       weight further
    ============================= ====== =====================================================
    RetinaNet (mmrazor)           10     ``omitted_levels=(-1,)``: P7 is left out
    GFL (with CrossKD)            6
    RetinaNet, FCOS (with CrossKD) 2
    ATSS (with CrossKD)           1
    ============================= ====== =====================================================

    The statistics are those of the batch of this process, as in the released code: with gradients
    that are averaged over processes the split of a batch matters, and with accumulated batches, too
    (also with ``train.normalize="iteration"``). A channel of the student that is
    constant but for rounding is divided by 1e-6, so its rounding is amplified.

    In a training step the tensors of the loss take, at their peak, 1.8 times the memory of the maps
    that are compared (both pyramids, or the features of both at the taps, float32; gradients
    included).
    """

    def __init__(
        self,
        *,
        weight: float = 6.0,
        taps: Sequence[Tap] = (),
        omitted_levels: Sequence[int] = (),
        resized: str = "student",
        warmup_iters: int = 0,
    ):
        """
        Args:
            weight: of the loss.
            taps: tower features to compare, see :data:`dense_kd.outputs.Tap`; none is the pyramid.
            omitted_levels: numbers of levels that are not compared, 0 the finest and -1 the
                coarsest.
            resized: whose map is resized to the other's size where they differ: "student"
                (released) or "teacher".
            warmup_iters: see :class:`KDMethod`.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_choices(("resized", resized, RESIZED))
        check_positive(weight=weight)
        self.weight = weight
        self.taps = _checked_taps(taps)
        self.needs = Needs(
            taps=self.taps, as_many_levels=True, predictions=False, features=not self.taps
        )
        self.omitted_levels = checked_omissions(omitted_levels)
        self.resized = resized

    def check(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Also the levels that are left out."""
        super().check(student, teacher)
        if student.strides == teacher.strides:
            check_unused(PKD, "equal level strides", resized=self.resized)
        remaining_levels(len(student.strides), self.omitted_levels)

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Choose the levels that are compared, and make their adapters."""
        super().prepare(student, teacher)
        self.levels = remaining_levels(len(student.strides), self.omitted_levels)
        self.adapters = tower_adapters(
            student, teacher, len(self.levels), self.taps or [("cls", 0)]
        )

    def unlike_one_batch(self) -> str | None:
        """It compares maps in units of their deviations over the batch."""
        return "it has means and deviations of features over the batch"

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_feature``."""
        ours, theirs = self._maps(student), self._maps(teacher)
        compared = comparable_maps(ours, theirs, self.adapters)
        ours, theirs = map(list, zip(*(equal_sizes(*maps, self.resized) for maps in compared)))
        return {"loss_feature": self.weight * correlation_loss(ours, theirs)}

    def _maps(self, dense: DensePass) -> list[Tensor]:
        """Those that are compared, (N, C, Hl, Wl), in the order of the adapters."""
        pyramids = [dense.taps[tap] for tap in self.taps] or [dense.features]
        return [pyramid[level] for pyramid in pyramids for level in self.levels]


def _checked_taps(taps: Sequence[Tap]) -> tuple[Tap, ...]:
    listed: Any = taps if is_list(taps) else (taps,)
    pairs = tuple(tuple(tap) if is_list(tap) else tap for tap in listed)
    for pair in pairs:
        if not isinstance(pair, tuple) or [type(part) for part in pair] != [str, int]:
            raise ValueError(
                f'taps={taps!r}: expected pairs of a branch and a depth, such as [("cls", 3)]'
            )
    if len(set(pairs)) < len(pairs):
        raise ValueError(f"taps={taps!r}: expected each once")
    return pairs


def equal_sizes(student: Tensor, teacher: Tensor, resized: str) -> tuple[Tensor, Tensor]:
    """Both maps at the size of that which is not ``resized``.

    Args:
        student: (N, C, Hl, Wl).
        teacher: (N, C, H'l, W'l).
        resized: one of :data:`RESIZED`.
    """
    if student.shape[-2:] == teacher.shape[-2:]:
        return student, teacher
    if resized == "student":
        return _resize(student, teacher), teacher
    return student, _resize(teacher, student)


def _resize(feature: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(feature, like.shape[-2:], mode="bilinear", align_corners=False)


def correlation_loss(student: Levels, teacher: Levels, eps: float = 1e-6) -> Tensor:
    """Half the mean squared difference of both maps after :func:`standardized`, summed over levels.

    Args:
        student, teacher: L x (N, C, Hl, Wl).
        eps: see :func:`standardized`.

    Returns:
        scalar, at most 2 for each level.
    """
    ours = standardized(listed(student), eps)
    theirs = standardized([level.detach() for level in listed(teacher)], eps)
    return torch.stack([F.mse_loss(s, t) for s, t in zip(ours, theirs)]).sum() / 2
