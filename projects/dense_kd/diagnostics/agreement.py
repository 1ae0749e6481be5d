"""Whether student and teacher look at the same locations, and rank them alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..options import check_counts
from ..outputs import DensePass
from .locations import Classes, common_levels, location_logits

MOST_LOCATIONS = 100
"""Of the best locations of a level that are compared; a tenth of the level, if that is fewer."""


@dataclass(frozen=True)
class Agreement:
    """Of student and teacher at one level; NaN where it is not defined.

    Attributes:
        overlap: IoU of the sets of their best locations, see :func:`top_overlap`, in [0, 1].
        correlation: of the ranks of their scores, see :func:`rank_correlation`, in [-1, 1].
    """

    overlap: float
    correlation: float


def agreement(
    student: DensePass, teacher: DensePass, classes: Classes = None
) -> dict[str, Agreement]:
    """{level: what both make of its locations}, means over the images; levels of equal stride.

    A location's score is the highest over its anchors and over the classes that correspond; logits
    are compared, whose order is that of the scores, and which differ where scores are rounded to 1.

    Args:
        student, teacher: passes over one batch.
        classes: which correspond.
    """
    ours, theirs = classes or (None, None)
    found = {}
    for name, (level, other) in common_levels(student, teacher).items():
        a = _best_class(location_logits(student, level, ours))
        b = _best_class(location_logits(teacher, other, theirs))
        number = min(MOST_LOCATIONS, math.ceil(a.shape[1] / 10))
        found[name] = Agreement(
            overlap=_mean([top_overlap(x, y, number) for x, y in zip(a, b)] if number else []),
            correlation=_mean([rank_correlation(x, y) for x, y in zip(a, b)]),
        )
    return found


def top_overlap(first: Tensor, second: Tensor, number: int) -> float:
    """IoU of the sets of the ``number`` highest of each: |A and B| / |A or B|.

    Of equal scores the earlier location counts as the higher.

    Args:
        first, second: (P,) scores of the same P locations.
        number: at least 1; all, if there are fewer.
    """
    check_counts(number=number)
    chosen = torch.zeros(2, len(first), dtype=torch.bool, device=first.device)
    for row, scores in zip(chosen, (first, second)):
        row[scores.sort(descending=True, stable=True).indices[:number]] = True
    both, either = chosen.all(dim=0).sum(), chosen.any(dim=0).sum()
    return (both / either).item() if len(first) else math.nan


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's: Pearson's correlation of the ranks, equal values having their mean rank.

    NaN if one of the two is constant.

    Args:
        first, second: (P,) scores of the same P locations.
    """
    a, b = (ranks - ranks.mean() for ranks in (mean_ranks(first), mean_ranks(second)))
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return ((a * b).sum() / scale).item() if scale > 0 else math.nan


def mean_ranks(values: Tensor) -> Tensor:
    """(P,) float64, from 1 for the lowest; equal values have the mean of the ranks they take.

    Args:
        values: (P,).
    """
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    counts = counts.double()
    return (counts.cumsum(dim=0) - (counts - 1) / 2)[inverse]


def _best_class(logits: Tensor) -> Tensor:
    return logits.amax(dim=2)  # (N, Hl*Wl)


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
