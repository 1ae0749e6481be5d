"""Student, teacher and methods: sizes, classes, and the maps that they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.modeling import Backbone
from omegaconf import DictConfig
from torch import Tensor, nn

from ...distiller import Distiller
from ...methods import KDMethod
from ...methods.base.class_maps import class_pairs
from ...pairs import teacher_for
from ..checks.tree import select
from .results import LevelFacts, ModelFacts


def student_of(model: nn.Module) -> nn.Module:
    """What is evaluated in the end."""
    return model.student if isinstance(model, Distiller) else model


def methods_of(model: nn.Module) -> Iterator[tuple[str, KDMethod]]:
    """The methods of a Distiller by name; none of another model."""
    if isinstance(model, Distiller):
        yield from model.kd.named_methods()


def model_facts(cfg: DictConfig, model: nn.Module) -> list[ModelFacts]:
    """Of the student, and for a Distiller of all detectors that teach, and of each method."""
    student = student_of(model)
    facts = [_facts("student", student, select(cfg, "train.init_checkpoint"))]
    if not isinstance(model, Distiller):
        return facts
    for place, teacher in model.teachers.items():
        facts.append(_facts(place, teacher.model, teacher.weights))
    for name, method in methods_of(model):
        of_method = _facts(name, method, None)
        of_method.warmup_iters = method.warmup_iters
        of_method.first_iter, of_method.last_iter = method.first_iter, method.last_iter
        if method.needs.same_classes:
            of_method.classes = _compared_classes(model, method)
        facts.append(of_method)
    return facts


def _facts(name: str, model: nn.Module, weights: str | None) -> ModelFacts:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return ModelFacts(
        name=name,
        kind=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        trained=trained,
        num_classes=getattr(model, "num_classes", None),
        class_names=getattr(model, "class_names", None),
        input_format=getattr(model, "input_format", None),
        weights=weights or None,
    )


def _compared_classes(model: Distiller, method: KDMethod) -> str:
    student = model.student
    teacher = teacher_for("a comparison of classes", model.teacher).model
    pairs = class_pairs(method.class_map, student, teacher)
    if pairs is None:
        return f"all {student.num_classes} classes, in their order"
    return (
        f"{len(pairs)} of the student's {student.num_classes} classes with as many of the "
        f"teacher's {teacher.num_classes}"
    )


class Watch:
    """Keeps what goes into a backbone and the maps that come out, while it is open."""

    def __init__(self, model: nn.Module):
        """
        Args:
            model: a detector; without a ``backbone``, nothing is kept.
        """
        self.model = model
        self.input_shape: tuple[int, ...] | None = None
        self.maps: dict[str, Tensor] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Watch:
        backbone = getattr(self.model, "backbone", None)
        if isinstance(backbone, nn.Module):
            self._handles.append(backbone.register_forward_hook(self._keep))
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self.maps = {}

    def _keep(self, _: nn.Module, inputs: tuple[Any, ...], maps: Any) -> None:
        if not isinstance(maps, dict):
            return
        wanted = getattr(self.model, "head_in_features", None) or list(maps)
        self.maps = {name: maps[name] for name in wanted}
        if inputs and isinstance(inputs[0], Tensor):
            self.input_shape = (*inputs[0].shape,)


def levels(student: Watch, teacher: Watch | None) -> list[LevelFacts]:
    """The pyramids of one batch; the levels of both correspond by their order."""
    theirs = list(teacher.maps.values()) if teacher else []
    backbone = getattr(student.model, "backbone", None)
    shapes = backbone.output_shape() if isinstance(backbone, Backbone) else {}
    return [
        LevelFacts(
            name=name,
            stride=shapes[name].stride if name in shapes else None,
            student=(*maps.shape,),
            teacher=(*theirs[index].shape,) if index < len(theirs) else None,
        )
        for index, (name, maps) in enumerate(student.maps.items())
    ]
