"""The parts of a distillation's step, each of which runs by itself."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Optional
from unittest import mock

import torch
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import Tensor, nn

from ..compat import full_precision
from ..distiller import Distiller
from ..engine.building import build_optimizer
from ..engine.dry_run.models import methods_of
from ..engine.trainer import amp_dtype_of, autocast, make_trainer
from ..methods import Step
from ..methods.base.kd_method import teach_fully
from ..one_pass import compiled_losses
from ..outputs import DensePass
from ..teacher import Teacher
from .batches import with_labels

STUDENT, TEACHER, STEP, EVALUATION, DATA = "student", "teacher", "step", "evaluation", "data"

_SCALING_STEPS = 40  # more than enough to bring a scale of 65,536 down to 1 and below


Inputs = tuple[DensePass, Optional[DensePass], Step]
"""Of methods: the passes of student and teacher, the second None where no detector teaches."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of work.

    Attributes:
        run: does it.
        prepare: makes what it needs, before every run; of no interest.
    """

    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


class Work:
    """A distillation and one batch of it.

    The inputs of teachers and methods are those that a training step gave them: it is run once, and
    watched. All methods have their full weights.

    Attributes:
        model: in training mode.
        batch: of its images.
        methods: their names.
    """

    def __init__(self, cfg: DictConfig, model: Distiller, batch: list[dict[str, Any]]):
        """
        Args:
            cfg: of the distillation; ``train`` and ``optimizer`` are read.
            model: its model.
            batch: with ground truth, but for images without labels.
        """
        self.cfg, self.model, self.batch = cfg, model.train(), batch
        teach_fully(model.kd)
        self.methods = dict(methods_of(model))
        self._seen: Inputs
        self._calls: dict[int, tuple[Callable[[], DensePass], DensePass]] = {}  # of each teacher
        self._watch_a_step()

    def losses(self, model: nn.Module) -> Tensor:
        """The sum of the losses of the student, of labelled images alone, or of the Distiller, a
        scalar with its graph."""
        batch = with_labels(self.batch) if model is self.model.student else self.batch
        with self._setting():
            return torch.stack([*model(batch).values()]).sum()

    def teachers(self) -> dict[str, Callable[[], None]]:
        """{name of the part: what runs its pass} of all detectors that teach, as the step asks for
        it: the Distiller's, and those that methods bring along."""
        own = {teacher_of(name): method.teacher for name, method in self.methods.items()}
        found = {TEACHER: self.model.teacher, **own}
        return {n: self._pass(id(each)) for n, each in found.items() if id(each) in self._calls}

    def _pass(self, teacher: int) -> Callable[[], None]:
        def run() -> None:
            with self._setting():
                self._calls[teacher][0]()

        return run

    def method(self, name: str, inputs: Inputs) -> Tensor:
        """The sum of a method's losses.

        Args:
            name: of the method.
            inputs: of :meth:`inputs`.
        """
        with self._setting(), full_precision(self.model.device):
            return torch.stack([*self.methods[name](*inputs).values()]).sum()

    def inputs(self) -> Inputs:
        """What the step gave its methods, as if none had seen it; gradients end there."""
        student, teacher, step = _unseen(*self._seen)
        return student, teacher, dataclasses.replace(step, run=self._pass_again)

    def _pass_again(self, teacher: Teacher, *_: Any, **__: Any) -> DensePass:
        """What the step's teacher gave, as if nobody had seen it."""
        return copy.copy(self._calls[id(teacher)][1])

    def evaluation(self) -> None:
        """What the student detects in the batch."""
        student = self.model.student.eval()
        try:
            with torch.no_grad(), self._setting():
                student(self.batch)
        finally:
            student.train()

    def parts(self) -> dict[str, Part]:
        """{name: part} of all but the data; of teachers only where there are such."""
        student = self._iterations(self.model.student, with_labels(self.batch))
        step = self._iterations(self.model, self.batch)
        found = {
            STUDENT: Part(student, self.forget_gradients),
            **{name: Part(run) for name, run in self.teachers().items()},
            STEP: Part(step, self.forget_gradients),
            EVALUATION: Part(self.evaluation, self.forget_gradients),
        }
        for name in self.methods:
            found[forward_of(name)] = self._forward(name)
            found[backward_of(name)] = self._backward(name)
        return found

    @property
    def teacher_passes(self) -> list[DensePass]:
        """What the step's teachers gave its methods."""
        return [dense for _, dense in self._calls.values()]

    def forget_gradients(self) -> None:
        """Those of the step before are no part of the next."""
        self.model.zero_grad(set_to_none=True)

    @contextlib.contextmanager
    def _setting(self) -> Iterator[None]:
        """What the trainer's passes run in."""
        train = self.cfg.train
        with (
            autocast(self.model.device, amp_dtype_of(train)),
            compiled_losses(train.get("compile_losses", False)),
        ):
            yield

    def _watch_a_step(self) -> None:
        def keep_passes(_: nn.Module, given: Inputs) -> None:
            self._seen = _unseen(*given)

        handle = self.model.kd.register_forward_pre_hook(keep_passes)
        try:
            with contextlib.ExitStack() as stack, EventStorage(0):
                for teacher in self.model.teachers.values():
                    stack.enter_context(self._keeping_the_call_of(teacher))
                self.losses(self.model)
        finally:
            handle.remove()

    def _keeping_the_call_of(self, teacher: Teacher) -> contextlib.AbstractContextManager[Any]:
        run = teacher.run

        def keep_call(*args: Any, **kwargs: Any) -> DensePass:
            dense = run(*args, **kwargs)
            self._calls[id(teacher)] = functools.partial(run, *args, **kwargs), copy.copy(dense)
            return dense

        return mock.patch.object(teacher, "run", keep_call)

    def _iterations(self, model: nn.Module, batch: list[dict[str, Any]]) -> Callable[[], None]:
        """What runs one iteration of the trainer; the weights stay as they are."""
        optimizer = build_optimizer(self.cfg, model)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        trainer = make_trainer(self.cfg.train, model, itertools.repeat(batch), optimizer)
        trainer.iter = 0

        def run() -> None:
            with EventStorage(0) as storage:
                trainer.storage = storage
                trainer.run_step()

        # A scale that is too large lets steps be left out.
        for _ in range(_SCALING_STEPS if trainer.grad_scaler.is_enabled() else 0):
            scale = trainer.grad_scaler.get_scale()
            run()
            if trainer.grad_scaler.get_scale() >= scale:
                break
        return run

    def _forward(self, name: str) -> Part:
        given: list[Any] = []

        def prepare() -> None:
            given[:] = [self.inputs()]

        return Part(lambda: self.method(name, given.pop()), prepare)

    def _backward(self, name: str) -> Part:
        losses: list[Tensor] = []

        def prepare() -> None:
            self.forget_gradients()
            losses[:] = [self.method(name, self.inputs())]

        return Part(lambda: losses.pop().backward(), prepare)


def teacher_of(method: str) -> str:
    """The name of the part that is the pass of a teacher that a method brings along."""
    return f"{method} {TEACHER}"


def forward_of(method: str) -> str:
    """The name of the part that computes a method's losses."""
    return f"{method} forward"


def backward_of(method: str) -> str:
    """The name of the part that computes their gradients."""
    return f"{method} backward"


def _unseen(student: DensePass, teacher: DensePass | None, step: Step) -> Inputs:
    """The same, without what is kept of them once a method has asked for it."""
    step = dataclasses.replace(step, targets=copy.copy(step.targets), detection={})
    return _with_leaves(student), copy.copy(teacher), step


def _with_leaves(dense: DensePass) -> DensePass:
    """The same pass without what it keeps, whose tensors with gradient are leaves of a graph."""
    names = [field.name for field in dataclasses.fields(dense)]
    return dataclasses.replace(dense, **{name: _leaves(getattr(dense, name)) for name in names})


def _leaves(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().requires_grad_() if value.requires_grad else value
    if isinstance(value, list):
        return [_leaves(item) for item in value]
    if isinstance(value, dict):
        return {key: _leaves(item) for key, item in value.items()}
    return value
