"""The distillations of configs, whose equal detectors are built once."""

from __future__ import annotations

import copy
from typing import Any

import torch
from omegaconf import DictConfig

from ..distiller import Distiller
from ..engine.building import arranged, build
from ..engine.checks.tree import calls_of, select
from ..feature_teacher import FeatureTeacher
from ..teacher import Teacher
from .random_weights import settle


class Models:
    """Builds Distillers without reading a file; what several configs share is one object."""

    def __init__(self, device: torch.device):
        """
        Args:
            device: of all of them.
        """
        self.device = device
        self._built: dict[str, Any] = {}

    def distiller(self, cfg: DictConfig) -> Distiller:
        """The model of a distillation, with weights of :func:`.random_weights.settle`.

        Args:
            cfg: with a Distiller for ``model``.

        Raises:
            RunError: a constructor refuses its arguments.
            DistillationError: student, teacher and methods do not go together.
        """
        parts: dict[str, Any] = {key: cfg.model[key] for key in cfg.model}
        parts["student"] = self.detector(
            cfg.model.student, "model.student", cfg.train.get("channels_last", False)
        )
        teacher = select(cfg, "model.teacher")
        parts["teacher"] = None if teacher is None else self._teacher(teacher)
        parts["methods"] = copy.deepcopy(cfg.model.methods)
        networks = (Teacher, FeatureTeacher)
        for _, network in calls_of(parts["methods"], "model.methods", networks):
            network.weights = None
        torch.manual_seed(0)
        model: Distiller = build(parts, "model")
        for each in model.teachers.values():
            if each is not model.teacher:
                settle(each.model.to(self.device))
        arranged(model.to(self.device), cfg.train)
        model.prepare_training()
        return model

    def _teacher(self, node: DictConfig) -> Teacher:
        key = repr(node)
        if key not in self._built:
            parts: dict[str, Any] = {name: node[name] for name in node}
            # Of no other teacher, nor the student: a teacher may fold the norms of its model.
            parts["model"] = self._new_detector(node.model, "model.teacher.model")
            self._built[key] = build({**parts, "weights": None}, "model.teacher")
        return self._built[key]

    def detector(self, node: DictConfig, place: str, channels_last: bool = False) -> Any:
        """A detector alone.

        Args:
            node: its LazyCall.
            place: of it in the config, for messages; equal nodes of one place are one object.
            channels_last: whether somebody arranges its weights so; others have another object.
        """
        key = f"{place} {channels_last} {node!r}"
        if key not in self._built:
            self._built[key] = self._new_detector(node, place)
        return self._built[key]

    def _new_detector(self, node: DictConfig, place: str) -> Any:
        torch.manual_seed(0)
        model = build(node, place).to(self.device)
        settle(model)
        return model


def set_classes(cfg: DictConfig, number: int) -> None:
    """Let all detectors have so many classes, without names.

    Args:
        cfg: of a distillation; it is changed.
        number: K.
    """
    teachers = [teacher.model for _, teacher in calls_of(cfg.model, "model", Teacher)]
    for detector in (cfg.model.student, *teachers):
        detector.num_classes = number
        if "num_classes" in detector.head and detector.head.num_classes != number:
            detector.head.num_classes = number
        if detector.get("class_names") is not None:
            detector.class_names = None
