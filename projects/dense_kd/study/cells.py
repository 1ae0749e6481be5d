"""A cell of a study: one training and its evaluation, as data that a file holds."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from ..arguments import is_integer
from ..config import find_config
from ..distiller import Distiller
from ..engine.checks import load_config
from ..engine.checks.overrides import apply_overrides
from ..methods import KDMethod, MethodSet, method_classes
from ..teacher import Teacher
from .errors import StudyError

__all__ = ["TEACHER", "Cell", "method_class"]

TEACHER = "teacher"
"""The method of the cell that trains a pair's teacher."""

_UNTRAINED = "the teacher is not trained yet"
"""A file that is not there."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training, evaluated on some datasets.

    Attributes:
        study, pair, method: names; ``method`` is :data:`TEACHER` of a pair's teacher.
        seed: of the initial weights, of the order of the images and of their augmentations.
        config: of the detector that is trained, a file or a name as all commands have it.
        evaluate: names of datasets; curves are on the first, AP is of all of them together.
        overrides: of that config, before a teacher is put beside the detector.
        teacher: the cell of the teacher; None of a detector that is trained alone, or by methods
            that have networks of their own.
        methods: {class in ``dense_kd.methods``: options}.
        init_student: whether the student inherits the teacher's FPN and head.
        balance: options of :class:`dense_kd.methods.balance.Balance`, which sets the weights of the
            methods; None leaves them as they are.
        diagnostics: iterations between measurements of the gradient's shares, 0 for none; only
            with methods.
    """

    study: str
    pair: str
    method: str
    seed: int
    config: str
    evaluate: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    teacher: Cell | None = None
    methods: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    init_student: bool = False
    balance: Mapping[str, Any] | None = None
    diagnostics: int = 0

    @property
    def name(self) -> str:
        """As in "fcos/bckd/1"; unique in a study."""
        return f"{self.pair}/{self.method}/{self.seed}"

    @property
    def file_name(self) -> str:
        """Of its result."""
        return f"{self.name.replace('/', '-')}.json"

    def as_json(self) -> dict[str, Any]:
        """In JSON types, for :meth:`of_json`."""
        content = dataclasses.asdict(self)
        return json.loads(json.dumps(content))

    @classmethod
    def of_json(cls, content: Any, where: str) -> Cell:
        """What :meth:`as_json` gave.

        Args:
            content: as it was read.
            where: for messages.

        Raises:
            StudyError: it is no cell.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if not isinstance(content, dict) or set(content) != set(fields):
            has = sorted(content) if isinstance(content, dict) else content
            raise StudyError(f"{where} is {has!r}; expected a cell, with {', '.join(fields)}")
        values = dict(content)
        wrong = [name for name in ("evaluate", "overrides") if not _are_texts(values[name])]
        wrong += [
            n for n in ("study", "pair", "method", "config") if not isinstance(values[n], str)
        ]
        wrong += [name for name in ("seed", "diagnostics") if not is_integer(values[name])]
        wrong += [] if isinstance(values["methods"], dict) else ["methods"]
        wrong += [] if isinstance(values["balance"], (dict, type(None))) else ["balance"]
        if wrong:
            given = {name: values[name] for name in wrong}
            raise StudyError(f"{where} is no cell of a study: {given!r}")
        for name in ("evaluate", "overrides"):
            values[name] = tuple(values[name])
        if values["teacher"] is not None:
            values["teacher"] = cls.of_json(values["teacher"], f"{where}, teacher")
        return cls(**values)

    def lazy_config(self, teacher_weights: str | None = None) -> DictConfig:
        """The config of the training, without its folder.

        Args:
            teacher_weights: a file; needed to train with a teacher, not to look at the config.

        Raises:
            StudyError: there is no such config or method.
            RunError: a config cannot be loaded, or an override is wrong.
        """
        cfg = apply_overrides(copy.deepcopy(_config(self.config, self.name)), self.overrides)
        if self._is_taught:
            cfg.model = L(Distiller)(
                student=cfg.model,
                teacher=self._teacher(teacher_weights),
                methods=L(MethodSet)(
                    **({} if self.balance is None else {"balance": dict(self.balance)}),
                    **{
                        name.lower(): L(method_class(name, self.name))(**options)
                        for name, options in self.methods.items()
                    },
                ),
                init_student=self.init_student,
            )
            cfg.train.diagnostics.period = self.diagnostics
            # What is measured between two lines is in none.
            cfg.train.log_period = math.gcd(cfg.train.log_period, self.diagnostics)
        cfg.train.seed = self.seed
        # Or it would be drawn, after whatever a method draws for its own parameters.
        cfg.dataloader.train.seed = self.seed
        cfg.dataloader.test.dataset.names = self.evaluate[0]
        return cfg

    @property
    def _is_taught(self) -> bool:
        return bool(self.methods) or self.teacher is not None

    def _teacher(self, weights: str | None) -> DictConfig | None:
        if self.teacher is None:
            return None
        model = self.teacher.lazy_config().model
        return L(Teacher)(model=model, weights=weights or _UNTRAINED, fold_norms=True)

    def bare_config(self) -> DictConfig:
        """:meth:`lazy_config` with the detector alone for its model."""
        cfg = self.lazy_config()
        if self._is_taught:
            cfg.model = cfg.model.student
        return cfg

    @property
    def digest(self) -> str:
        """Of all that is in it."""
        text = json.dumps(self.as_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def method_class(name: str, where: str) -> type[KDMethod]:
    """A class of ``dense_kd.methods``.

    Raises:
        StudyError: there is none of that name.
    """
    kinds = method_classes()
    if name not in kinds:
        meant = difflib.get_close_matches(name, kinds, n=2, cutoff=0.4) or sorted(kinds)
        raise StudyError(
            f"{where}: there is no method {name!r}; did you mean {' or '.join(meant)}?"
        )
    return kinds[name]


def _config(name: str, where: str) -> DictConfig:
    file = find_config(name)
    if file is None:
        raise StudyError(
            f"{where}: there is no config {name!r}; expected a file (here is {Path().absolute()}) "
            "or one of `dense-kd list configs`"
        )
    return load_config(file)


def _are_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value)
