"""Maps of a single image, one array (Hl, Wl) for each level of the pyramid.

They are those of the papers' figures: BCKD's Figure 3, CrossKD's Figure 2, PGD's Figures 1 and 2
and TID's Figure 4. All are float32 arrays of numpy; cells in the padding of a batch are in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor

from ..methods import BCKD, PGD, TID
from ..methods.pgd.weighting import FOREGROUNDS
from ..outputs import DensePass, Targets
from .errors import DiagnosticsError
from .locations import location_labels, location_logits

__all__ = [
    "BOUND",
    "Levels",
    "assigned_classes",
    "class_scores",
    "foreground_masks",
    "largest_of_levels",
    "score_sum_error",
    "student_sum_error",
    "task_values",
]

Levels = list[np.ndarray]
"""L x (Hl, Wl), float32."""

BOUND = 0.4
"""What the errors of BCKD's Figure 3 are clipped at."""


@torch.no_grad()
def score_sum_error(
    method: BCKD, student: DensePass, teacher: DensePass, *, image: int = 0, bound: float = BOUND
) -> Levels:
    """|sum_k sig(t_k) - sum_k sig(s_k)| at each location (BCKD, Figure 3).

    "The L1 error of summation of the classification score after Sigmoid", of GFL, which has one
    prediction per location; where a detector has A anchors it is the mean of their A errors.

    Args:
        method: says which classes correspond; the others are in no sum.
        student, teacher: passes over a batch.
        image: of the batch.
        bound: the largest value, which larger ones become.
    """
    ours, theirs = method.comparable_levels(student, teacher)
    return _error(student, ours, theirs, image, bound)


@torch.no_grad()
def student_sum_error(
    first: DensePass, second: DensePass, *, image: int = 0, bound: float = BOUND
) -> Levels:
    """:func:`score_sum_error` of two students, over all of their classes.

    Args:
        first, second: passes over a batch, of detectors with equal classes and anchors.
        image: of the batch.
        bound: the largest value, which larger ones become.

    Raises:
        DiagnosticsError: their predictions do not correspond one to one.
    """
    shapes = [[tuple(x.shape) for x in dense.logits] for dense in (first, second)]
    if shapes[0] != shapes[1]:
        raise DiagnosticsError(
            f"the logits of the two students have the shapes {shapes[0]} and {shapes[1]}; expected "
            "equal ones, of the same detector and the same images"
        )
    return _error(first, first.logits, second.logits, image, bound)


@torch.no_grad()
def class_scores(
    dense: DensePass, *, image: int = 0, category: int | None = None, classes: Tensor | None = None
) -> Levels:
    """The largest class score of each location, over its anchors (CrossKD, Figure 2).

    Args:
        dense: a pass over a batch.
        image: of the batch.
        category: a class of this detector; None takes the largest of ``classes``.
        classes: indices of those that count; None: all.

    Raises:
        DiagnosticsError: the detector has no such class.
    """
    if category is not None and not 0 <= category < dense.num_classes:
        raise DiagnosticsError(
            f"category={category}: expected a class of the detector, 0 to {dense.num_classes - 1}"
        )
    if category is not None:
        classes = torch.tensor([category], device=dense.logits[0].device)
    levels = (location_logits(dense, level, classes) for level in range(len(dense.logits)))
    return _shaped([logits[image].amax(dim=1).sigmoid() for logits in levels], dense)


@torch.no_grad()
def assigned_classes(
    targets: Targets, student: DensePass, *, image: int = 0, category: int | None = None
) -> Levels:
    """1 where an anchor of a location is positive, else 0 (CrossKD, Figure 2a).

    Args:
        targets: of the student's assigner.
        student: the pass that they are of.
        image: of the batch.
        category: a class of the student, whose positives alone count; None: of all.
    """
    found = []
    for level in range(len(student.logits)):
        wanted = location_labels(targets, student, level)[0][image]  # (Hl*Wl, K)
        found.append(wanted.amax(dim=1) if category is None else wanted[:, category])
    return _shaped(found, student)


def foreground_masks(
    method: PGD,
    teacher: DensePass,
    truth: Instances,
    index: int | None = None,
    *,
    image: int = 0,
    strategies: Sequence[str] = FOREGROUNDS,
) -> dict[str, Levels]:
    """The foreground masks that PGD compares (Figure 1, Table 5), of the class branch.

    Args:
        method: has xi, the number of locations and the correspondence of classes.
        teacher: a pass over a batch.
        truth: the objects of the image, of the student's classes.
        index: of one object; None: of all, each location with its largest weight.
        image: of the batch.
        strategies: of :func:`dense_kd.methods.pgd.weighting.foreground_weights`; "quality" is
            score^(1 - xi) * IoU^xi of the best anchor (Figure 2).

    Returns:
        {strategy: levels}

    Raises:
        DiagnosticsError: there is no such object.
    """
    if index is not None:
        if not 0 <= index < len(truth):
            raise DiagnosticsError(
                f"there is no object {index}; expected a number from 0, and the image has "
                f"{len(truth)} objects"
            )
        truth = truth[index : index + 1]
    truths = _alone(truth, image, teacher)
    return {
        strategy: _arrays(level[image] for level in method.masks(teacher, truths, strategy).cls)
        for strategy in strategies
    }


def task_values(
    method: TID, student: DensePass, teacher: DensePass, truth: Instances, *, image: int = 0
) -> dict[str, Levels]:
    """What TID makes of both tasks at each point, and its areas (Figure 4).

    Args:
        method: with its options.
        student, teacher: passes over a batch.
        truth: the objects of the image.
        image: of the batch.

    Returns:
        {name: levels} of each attribute of :class:`dense_kd.methods.tid.tid.PointValues`; all 0
        without objects.
    """
    values = method.values(student, teacher, _alone(truth, image, teacher))
    sizes = [feature.shape[-2:].numel() for feature in student.features]
    return {
        name: _shaped(list(value[image].split(sizes)), student)
        for name, value in values._asdict().items()
    }


def largest_of_levels(levels: Levels, strides: Sequence[int]) -> np.ndarray:
    """(H1, W1): at each cell of the finest level the largest value of the cells over it.

    Args:
        levels: L x (Hl, Wl), finest first.
        strides: L, in pixels.
    """
    rows, columns = (np.arange(n) for n in levels[0].shape)
    found = levels[0]
    for level, stride in zip(levels[1:], strides[1:]):
        down, right = (
            np.minimum(cells * strides[0] // stride, n - 1)
            for cells, n in zip((rows, columns), level.shape)
        )
        found = np.maximum(found, level[np.ix_(down, right)])
    return found


def _alone(truth: Instances, image: int, dense: DensePass) -> list[Instances]:
    """N Instances: the objects of one image of the batch, and none in the others."""
    return [truth if n == image else truth[:0] for n in range(len(dense.image_sizes))]


def _error(
    dense: DensePass, ours: list[Tensor], theirs: list[Tensor], image: int, bound: float
) -> Levels:
    found = []
    for a, b in zip(ours, theirs):
        error = (b[image].sigmoid().sum(dim=1) - a[image].sigmoid().sum(dim=1)).abs()
        error = error.unflatten(0, (-1, dense.num_anchors)).mean(dim=1)  # (Hl*Wl,)
        found.append(error.clamp(max=bound))
    return _shaped(found, dense)


def _shaped(levels: Sequence[Tensor], dense: DensePass) -> Levels:
    """L x (Hl, Wl) of L x (Hl*Wl,)."""
    pairs = zip(levels, dense.features)
    return _arrays(level.unflatten(0, feature.shape[-2:]) for level, feature in pairs)


def _arrays(levels: Iterable[Tensor]) -> Levels:
    return [level.float().cpu().numpy() for level in levels]
