"""How far the student's class scores are from the teacher's, and from the labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..outputs import DensePass, Targets
from .locations import Classes, common_levels, location_labels, location_logits


@dataclass(frozen=True)
class Distances:
    """Sums over locations, of a batch or, added up, of a dataset.

    Attributes:
        teacher_sum: of the distances to the teacher.
        truth_sum: of the distances to the labels.
        locations: that are compared.
    """

    teacher_sum: float
    truth_sum: float
    locations: int

    @property
    def teacher(self) -> float:
        """The mean distance to the teacher; NaN without any location."""
        return self.teacher_sum / self.locations if self.locations else math.nan

    @property
    def truth(self) -> float:
        """The mean distance to the labels; NaN without any location."""
        return self.truth_sum / self.locations if self.locations else math.nan

    def __add__(self, other: Distances) -> Distances:
        """Of two batches together."""
        return Distances(
            self.teacher_sum + other.teacher_sum,
            self.truth_sum + other.truth_sum,
            self.locations + other.locations,
        )


@torch.no_grad()
def distances(
    student: DensePass, teacher: DensePass, targets: Targets, *, classes: Classes = None
) -> Distances:
    """The mean L1 distances of CrossKD, Figure 6 (a) and (b).

    With class scores s_ik of the student and t_ik of the teacher at the P locations i that are not
    ignored, and labels y_ik of 0 and 1,

        teacher = sum_ik |s_ik - t_ik| / P,    truth = sum_ik |s_ik - y_ik| / P

    The paper says "mean L1 distance" of predictions: that it is that of class scores, summed over
    the classes, and the labels of 0 and 1 are ours. Locations are those of
    :func:`.conflicts.conflicts`.

    Args:
        student, teacher: passes over one batch; levels of equal stride are compared.
        targets: of the student.
        classes: which correspond.
    """
    ours, theirs = classes or (None, None)
    found = Distances(0.0, 0.0, 0)
    for level, other in common_levels(student, teacher).values():
        wanted, valid = location_labels(targets, student, level, ours)
        scores = location_logits(student, level, ours).sigmoid()[valid]  # (P, K')
        of_teacher = location_logits(teacher, other, theirs).sigmoid()[valid]
        found += Distances(
            (scores - of_teacher).abs().double().sum().item(),
            (scores - wanted[valid]).abs().double().sum().item(),
            len(scores),
        )
    return found
