"""Where the teacher contradicts the labels that the student is to learn (CrossKD, Figure 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..options import is_share
from ..outputs import DensePass, Targets
from .errors import DiagnosticsError
from .locations import Classes, common_levels, location_labels, location_logits

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
"""0.05 to 0.95."""


@dataclass(frozen=True)
class Conflicts:
    """Counts of locations, of a batch or, added up, of a dataset.

    Attributes:
        thresholds: T differences t.
        above: T numbers of locations whose teacher and label differ by more than t.
        positives: locations that are positive.
        locations: that are compared.
    """

    thresholds: tuple[float, ...]
    above: tuple[int, ...]
    positives: int
    locations: int

    @property
    def ratios(self) -> list[float]:
        """T, conflicts for each positive (CrossKD, Figure 3); above 1 where there are more. NaN
        without any positive."""
        return [_ratio(count, self.positives) for count in self.above]

    @property
    def shares(self) -> list[float]:
        """T, conflicts in all locations, in [0, 1]; NaN without any location."""
        return [_ratio(count, self.locations) for count in self.above]

    def __add__(self, other: Conflicts) -> Conflicts:
        """Of two batches together."""
        if self.thresholds != other.thresholds:
            raise DiagnosticsError(
                f"counts at the thresholds {self.thresholds} and {other.thresholds} cannot be "
                "added; count both at the same"
            )
        above = tuple(a + b for a, b in zip(self.above, other.above))
        return Conflicts(
            self.thresholds,
            above,
            self.positives + other.positives,
            self.locations + other.locations,
        )


def conflicts(
    student: DensePass,
    teacher: DensePass,
    targets: Targets,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    classes: Classes = None,
) -> Conflicts:
    """Count the locations at which teacher and label differ by more than each threshold.

    With p_ik the teacher's score of class k at location i, and y_ik = 1 where the student's
    assigner makes location i positive for class k, else 0, location i is in conflict if

        max_k |p_ik - y_ik| > t

    The paper divides their number by that of the positives and states no more: the maximum over
    the classes, y of 0 and 1, and locations (of detectors with several anchors the best score,
    and a label of any) are ours.

    Args:
        student, teacher: passes over one batch; levels of equal stride are compared.
        targets: of the student.
        thresholds: T numbers t from 0 to 1.
        classes: which correspond.

    Raises:
        DiagnosticsError: there is no threshold, or one is not from 0 to 1.
    """
    if not thresholds or not all(map(is_share, thresholds)):
        raise DiagnosticsError(
            f"thresholds={list(thresholds)}: expected numbers from 0 to 1, as in [0.25, 0.5]"
        )
    ours, theirs = classes or (None, None)
    limits = torch.tensor(thresholds, device=targets.labels.device)
    counts = torch.zeros(len(thresholds) + 2, dtype=torch.int64, device=limits.device)
    for level, other in common_levels(student, teacher).values():
        wanted, valid = location_labels(targets, student, level, ours)
        scores = location_logits(teacher, other, theirs).sigmoid()
        difference = label_difference(scores, wanted)[valid]
        above = (difference[:, None] > limits).sum(dim=0)  # (T,)
        positives = wanted.any(dim=2)[valid].sum()
        counts += torch.stack([*above, positives, valid.sum()])
    *above_all, positive, number = counts.tolist()
    return Conflicts(tuple(thresholds), tuple(above_all), positive, number)


def label_difference(scores: Tensor, wanted: Tensor) -> Tensor:
    """(...): max_k |p_k - y_k| over the last dimension.

    Args:
        scores, wanted: (..., K').
    """
    return (scores - wanted).abs().amax(dim=-1)


def _ratio(count: int, of: int) -> float:
    return count / of if of else math.nan
