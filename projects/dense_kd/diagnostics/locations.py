"""Class scores and labels of locations, so that unequal numbers of anchors can be compared."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from ..detectors import DenseDetector
from ..distiller import Distiller
from ..outputs import DensePass, Targets
from .errors import DiagnosticsError
from .methods_of_pair import class_correspondence, corresponding

Classes = Optional[tuple[Tensor, Tensor]]
"""(K',) indices of the classes that correspond, in the student and in the teacher; None: all do,
in order."""


def compared_classes(distiller: Distiller) -> Classes:
    """As a method of the distiller says, or else as :func:`corresponding_classes`.

    Raises:
        DiagnosticsError: nothing says which classes correspond.
    """
    return _indices(class_correspondence(distiller), distiller.student)


def corresponding_classes(student: DenseDetector, teacher: DenseDetector) -> Classes:
    """All in order if they are the same, or else those of equal name.

    Raises:
        DiagnosticsError: nothing says which classes correspond.
    """
    return _indices(corresponding(student, teacher), student)


def _indices(pairs: list[tuple[int, int]] | None, student: DenseDetector) -> Classes:
    if pairs is None:
        return None
    ours, theirs = torch.tensor(pairs, device=student.device).unbind(dim=1)
    return ours, theirs


def common_levels(student: DensePass, teacher: DensePass) -> dict[str, tuple[int, int]]:
    """{name: (level of the student, level of the teacher)} of levels with equal strides.

    Levels are named as detectron2 names them: p3 has stride 8.

    Args:
        student, teacher: passes over one batch.

    Raises:
        DiagnosticsError: levels of equal strides have unequally many locations, so these are no
            passes over one batch.
    """
    found = {}
    for level, stride in enumerate(student.strides):
        if stride not in teacher.strides:
            continue
        other = teacher.strides.index(stride)
        ours, theirs = num_locations(student, level), num_locations(teacher, other)
        if ours != theirs:
            raise DiagnosticsError(
                f"the student has {ours} locations at stride {stride} and the teacher {theirs}; "
                "give the passes of both over the same padded images"
            )
        found[f"p{stride.bit_length() - 1}"] = (level, other)
    return found


def num_locations(dense: DensePass, level: int) -> int:
    """Hl * Wl."""
    return dense.logits[level].shape[1] // dense.num_anchors


def location_logits(dense: DensePass, level: int, classes: Tensor | None = None) -> Tensor:
    """(N, Hl*Wl, K') class logits of a level, the highest of a location's anchors.

    Args:
        dense: a pass.
        level: its index.
        classes: (K',) those to keep; None keeps all.
    """
    logits = dense.logits[level].detach().unflatten(1, (-1, dense.num_anchors))
    best = logits.amax(dim=2)  # (N, Hl*Wl, K)
    return best if classes is None else best[..., classes]


def location_labels(
    targets: Targets, dense: DensePass, level: int, classes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the assigner wants of the class scores of a level's locations.

    Args:
        targets: of ``dense``.
        dense: the student's pass.
        level: its index.
        classes: (K',) those to keep; None keeps all.

    Returns:
        (N, Hl*Wl, K') in {0, 1}, 1 where an anchor of the location is positive for the class; and
        (N, Hl*Wl) bool, whether the location is compared: not if all of its anchors are ignored,
        or if it is positive for left out classes only.
    """
    labels = targets.labels.split(dense.num_predictions, dim=1)[level]
    labels = labels.unflatten(1, (-1, dense.num_anchors))  # (N, Hl*Wl, A)
    valid = (labels >= 0).any(dim=2)
    wanted = torch.zeros(*labels.shape[:2], targets.num_classes + 1, device=labels.device)
    wanted.scatter_(2, labels.where(labels >= 0, labels.new_tensor(targets.num_classes)), 1.0)
    wanted = wanted[..., :-1]  # (N, Hl*Wl, K), without background
    if classes is None:
        return wanted, valid
    kept = wanted[..., classes]
    return kept, valid & (kept.any(dim=2) | ~wanted.any(dim=2))
