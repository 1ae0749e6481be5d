"""What is looked at of a run: its Distiller, and a method of it or one with default options."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from ..checkpoint.layouts.wrappers import unwrapped
from ..detectors import DenseDetector
from ..distiller import Distiller
from ..methods import CrossKD, KDMethod
from ..methods.base.class_maps import BY_NAME, ClassMap, class_pairs
from ..pairs import teacher_for
from .errors import DiagnosticsError

__all__ = ["class_correspondence", "corresponding", "distiller_of", "method_of"]

Method = TypeVar("Method", bound=KDMethod)

DEPTH = 3
"""Of CrossKD's defaults; of shorter towers it is their length."""


def distiller_of(model: nn.Module, option: str) -> Distiller:
    """What a trainer trains, without DDP around it.

    Args:
        model: of the trainer.
        option: of a config, that looks at student and teacher.

    Raises:
        DiagnosticsError: it is no Distiller.
    """
    found = unwrapped(model)
    if not isinstance(found, Distiller):
        raise DiagnosticsError(
            f"the model is a {type(found).__name__}; expected a Distiller, for {option} is about "
            f"student and teacher: leave {option} out"
        )
    return found


def method_of(model: Distiller, kind: type[Method]) -> Method:
    """The first method of a kind in ``model``, or else one with default options for this pair.

    The random generators are left as they are.

    Args:
        model: a distiller.
        kind: CrossKD, or a class of methods that takes a ``class_map``.

    Raises:
        DiagnosticsError: there is none, and the default one cannot compare the two detectors.
        DistillationError: there is none, and no detector teaches.
    """
    for method in model.kd.children():
        if isinstance(method, kind):
            return method
    student, teacher = model.student, _detector_that_teaches(model)
    options: dict[str, Any] = {}
    if issubclass(kind, CrossKD):
        options["depth"] = min(DEPTH, student.head.depth, teacher.head.depth)
    else:
        options["class_map"] = _class_map(model)
    made = kind(**options)
    try:
        made.check(student, teacher)
    except ValueError as error:
        raise DiagnosticsError(
            f"{kind.__name__} cannot compare the teacher {type(teacher).__name__} with the student "
            f"{type(student).__name__}: {error}"
        ) from None
    with torch.random.fork_rng(devices=[]):
        made.prepare(student, teacher)
    if isinstance(made, CrossKD) and len(made.adapters) > 0:
        ours, theirs = (d.head.tower_channels[made.depth["cls"]] for d in (student, teacher))
        raise DiagnosticsError(
            f"the student's towers have {ours} channels and the teacher's {theirs}, and a "
            "convolution between them has to be trained; give the config of a run with CrossKD"
        )
    return made


def class_correspondence(model: Distiller) -> list[tuple[int, int]] | None:
    """[(class of the student, class of the teacher)], None if all correspond in order.

    Raises:
        DiagnosticsError: nothing says which correspond.
        DistillationError: no detector teaches.
    """
    return corresponding(model.student, _detector_that_teaches(model), _class_map(model))


def corresponding(
    student: DenseDetector, teacher: DenseDetector, class_map: ClassMap = None
) -> list[tuple[int, int]] | None:
    """As :func:`class_correspondence`, of any two detectors.

    Args:
        student, teacher: detectors.
        class_map: None: the same classes, or else those of equal name.

    Raises:
        DiagnosticsError: nothing says which correspond.
    """
    class_map = _by_name_if_they_differ(student, teacher) if class_map is None else class_map
    try:
        return class_pairs(class_map, student, teacher)
    except ValueError as error:
        raise DiagnosticsError(f"which classes correspond is not known: {error}") from None


def _class_map(model: Distiller) -> ClassMap:
    """That of a method of the run, or else classes of equal name where they differ."""
    for method in model.kd.children():
        if isinstance(method, KDMethod) and method.class_map is not None:
            return method.class_map
    return _by_name_if_they_differ(model.student, _detector_that_teaches(model))


def _detector_that_teaches(model: Distiller) -> DenseDetector:
    return teacher_for("a comparison of student and teacher", model.teacher).model


def _by_name_if_they_differ(student: DenseDetector, teacher: DenseDetector) -> ClassMap:
    ours, theirs = student.class_names, teacher.class_names
    differ = student.num_classes != teacher.num_classes or ours != theirs
    return BY_NAME if differ and ours is not None and theirs is not None else None
