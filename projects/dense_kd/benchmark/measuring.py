"""What ``dense-kd benchmark`` does; the package says what is timed and what is not."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch.utils.flop_counter import FlopCounterMode

from ..compat import uncompiled
from ..detectors import DenseDetector
from ..engine.checks import RunError
from ..engine.checks import data as data_checks
from ..engine.checks import device as device_checks
from ..engine.checks.overrides import gives
from ..engine.checks.tree import select
from ..engine.distilled import distillation_config
from ..engine.dry_run.data import first_batch
from ..engine.loaders import load_training
from ..engine.trainer import amp_dtype_of
from ..noise import silence
from ..options import check_counts
from .batches import (
    COCO_BOXES,
    COCO_SIZE,
    batch_facts,
    drawn_batch,
    number_without_labels,
    with_labels,
)
from .counting import count_kernels
from .errors import BenchmarkError
from .machine import circumstances, load_average, threads
from .memory import MEMORY_OF, bytes_of, bytes_of_pass, peak_memory
from .models import Models, set_classes
from .profiling import write_profile
from .schema import FORMAT
from .timing import spread, timed_rounds
from .work import DATA, STEP, STUDENT, Part, Work

__all__ = ["WHAT", "Settings", "Wanted", "benchmark"]

WHAT = ("times", "memory", "flops", "kernels")

_SET_HERE = {
    "train.accumulate": "a step has one batch",
    "train.device": "give --device",
    "dataloader.train.total_batch_size": "give --batch",
    "dataloader.train.num_workers": "images are loaded in the process that is timed",
}
"""{entry of a config: why an override of it is refused}."""

_NOT_LOADED = ("dataloader.test", "dataloader.evaluator")

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A distillation to be measured.

    Attributes:
        config: its name or path.
        overrides: of it alone.
        common: overrides of all, which are not in its title.
    """

    config: str
    overrides: tuple[str, ...] = ()
    common: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """How it is called in tables."""
        return " ".join((self.config, *self.overrides))


@dataclasses.dataclass(frozen=True)
class Settings:
    """How everything is measured.

    Attributes:
        what: some of :data:`WHAT`.
        device: "cpu" or "cuda"; None: the GPU if there is one.
        threads: of torch's operators; None: as many as torch takes.
        batch: images.
        size: (height, width) of the images that are drawn; None: COCO's.
        boxes: of an image that is drawn; None: COCO's.
        classes: K of student, teacher and boxes; None: those of the config.
        data: load the images of each config's training set instead of drawing some.
        rounds, warmup: that are counted, and before them.
        profile: a file for a profile of one step of each distillation, or None.
    """

    what: tuple[str, ...] = WHAT
    device: str | None = None
    threads: int | None = None
    batch: int = 1
    size: tuple[int, int] | None = None
    boxes: int | None = None
    classes: int | None = None
    data: bool = False
    rounds: int = 10
    warmup: int = 2
    profile: str | None = None


def benchmark(
    wanted: Sequence[Wanted], settings: Settings | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure distillations side by side.

    Args:
        wanted: at least one.
        settings: how; None is the defaults.
        progress: is told how many rounds are done, of how many.

    Returns:
        :data:`.schema.RESULTS`.

    Raises:
        BenchmarkError: an argument cannot be.
        RunError: a config is no distillation, cannot be built, or its data are not there.
        DistillationError: student, teacher and methods of one do not go together.
    """
    settings = settings or Settings()
    device = _checked(wanted, settings)
    silence()
    configs = [_config(each, settings, device) for each in wanted]
    with threads(settings.threads or torch.get_num_threads()), _without_warnings():
        content = {
            "format": FORMAT,
            **circumstances(device),
            "device": str(device),
            "threads": torch.get_num_threads(),
            "load_before": load_average(),
        }
        kernels = [count_kernels(c) if "kernels" in settings.what else None for c in configs]
        models = Models(device)
        measured = [_Measured(cfg, models, settings) for cfg in configs]
        _measure(measured, settings, device, progress)
        if settings.profile:
            steps = {e.title: m.parts[STEP] for e, m in zip(wanted, measured)}
            write_profile(settings.profile, steps, device)
        return {
            **content,
            "load_after": load_average(),
            "data": "loaded" if settings.data else "drawn",
            "batch": batch_facts(measured[0].batch),
            "rounds": settings.rounds if "times" in settings.what else 0,
            "warmup": settings.warmup,
            "memory_of": MEMORY_OF[device.type] if "memory" in settings.what else None,
            "runs": [
                {
                    "title": each.title,
                    "config": each.config,
                    "overrides": [*each.common, *each.overrides],
                    **found.result(),
                    "kernels": counted,
                }
                for each, found, counted in zip(wanted, measured, kernels)
            ],
        }


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """What a training would be warned of costs nothing."""
    logger = logging.getLogger(__package__.partition(".")[0])
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class _Measured:
    """A distillation, and what is known of its parts so far."""

    def __init__(self, cfg: DictConfig, models: Models, settings: Settings):
        self.cfg = cfg
        model = models.distiller(cfg)
        batches = _batches(cfg, model.student, settings)
        self.batch = next(batches)
        self.work = Work(cfg, model, self.batch)
        self.parts: dict[str, Part] = self.work.parts()
        if settings.data:
            self.parts = {DATA: Part(functools.partial(next, batches)), **self.parts}
        self.found: dict[str, dict[str, Any]] = {
            name: {"seconds": None, "memory": None, "flops": None} for name in self.parts
        }
        self.seconds: dict[str, list[float]] = {}

    def result(self) -> dict[str, Any]:
        model, teachers = self.work.model, self._teachers
        return {
            "student": type(model.student).__name__,
            "teacher": " and ".join(type(each).__name__ for each in teachers) or None,
            "methods": {name: type(method).__name__ for name, method in self.work.methods.items()},
            "unlabelled": len(self.batch) - len(with_labels(self.batch)),
            "amp": amp_dtype_of(self.cfg.train),
            "weights": {
                "student": bytes_of(model.student),
                "teacher": sum(map(bytes_of, teachers)),
            },
            "teacher_pass": self._bytes_of_teacher_passes(),
            "parts": self.found,
            "overhead": self._ratio(STUDENT, *self.work.teachers()),
            "price": self._ratio(STUDENT),
            "memory": self._memory_ratio(),
        }

    @property
    def _teachers(self) -> list[DenseDetector]:
        return [teacher.model for teacher in self.work.model.teachers.values()]

    def _bytes_of_teacher_passes(self) -> int:
        return sum(map(bytes_of_pass, self.work.teacher_passes))

    def _memory_ratio(self) -> float | None:
        step = self.found[STEP]["memory"]
        if step is None:
            return None
        weights = sum(map(bytes_of, (self.work.model.student, *self._teachers)))
        floor = self.found[STUDENT]["memory"] + self._bytes_of_teacher_passes()
        return (weights + step) / (weights + floor)

    def _ratio(self, *others: str) -> dict[str, Any] | None:
        """Of a step to those of other parts together, round by round."""
        if not self.seconds:
            return None
        rounds = zip(self.seconds[STEP], *(self.seconds[name] for name in others))
        return spread([step / sum(floor) for step, *floor in rounds])


def _measure(
    measured: list[_Measured], settings: Settings, device: torch.device, progress: Progress | None
) -> None:
    parts = {
        (index, name): part
        for index, each in enumerate(measured)
        for name, part in each.parts.items()
    }
    if "times" in settings.what:
        seconds = timed_rounds(
            parts, device, rounds=settings.rounds, warmup=settings.warmup, progress=progress
        )
        for (index, name), values in seconds.items():
            measured[index].seconds[name] = values
            measured[index].found[name]["seconds"] = spread(values)
    for (index, name), part in parts.items():
        if "flops" in settings.what and name != DATA:
            part.prepare()
            with uncompiled(), FlopCounterMode(display=False) as counter:
                part.run()
            measured[index].found[name]["flops"] = counter.get_total_flops()
    for (index, name), part in parts.items():
        if "memory" in settings.what:
            part.prepare()
            measured[index].found[name]["memory"] = peak_memory(part.run, device)
            measured[index].work.forget_gradients()


def _batches(cfg: DictConfig, student: Any, settings: Settings) -> Any:
    if settings.data:
        batches = iter(load_training(cfg).loader)
        return itertools.chain([first_batch(batches)], batches)
    boxes = COCO_BOXES if settings.boxes is None else settings.boxes
    return itertools.repeat(
        drawn_batch(cfg, student, settings.batch, settings.size or COCO_SIZE, boxes)
    )


def _config(wanted: Wanted, settings: Settings, device: torch.device) -> DictConfig:
    """The config as it is measured."""
    for override in (*wanted.common, *wanted.overrides):
        for place, instead in _SET_HERE.items():
            if gives([override], place):
                raise BenchmarkError(f"{override}: would not count; {instead}")
    cfg = copy.deepcopy(distillation_config(wanted.config, [*wanted.common, *wanted.overrides]))
    cfg.train.device = str(device)
    cfg.train.accumulate = 1
    if select(cfg, "model.teacher") is not None:
        cfg.model.teacher.weights = None
    if settings.classes is not None:
        set_classes(cfg, settings.classes)
    if amp_dtype_of(cfg.train) == "float16" and device.type != "cuda":
        raise BenchmarkError(
            f"{wanted.title}: float16 needs a GPU to train; give train.amp.dtype=bfloat16"
        )
    if settings.data:
        if select(cfg, "dataloader.unlabelled") is not None:
            number = number_without_labels(cfg, settings.batch)
            cfg.dataloader.unlabelled.total_batch_size = number
            cfg.dataloader.unlabelled.num_workers = 0
        cfg.dataloader.train.total_batch_size = settings.batch
        cfg.dataloader.train.num_workers = 0
        found = [p for p in data_checks.problems(cfg, "train") if not p.startswith(_NOT_LOADED)]
        if found:
            raise RunError(found)
    return cfg


def _checked(wanted: Sequence[Wanted], settings: Settings) -> torch.device:
    """The device.

    Raises:
        BenchmarkError: an argument cannot be.
    """
    if not wanted:
        raise BenchmarkError("there is no config; give one or more distillations")
    if not settings.what or set(settings.what) - set(WHAT):
        raise BenchmarkError(
            f"what {','.join(settings.what)!r}: expected one or more of {', '.join(WHAT)}"
        )
    try:
        for name, value, least in (
            ("batch", settings.batch, 1),
            ("rounds", settings.rounds, 1),
            ("warmup", settings.warmup, 0),
            ("threads", settings.threads, 1),
            ("boxes", settings.boxes, 0),
            ("classes", settings.classes, 1),
        ):
            if value is not None:
                check_counts(at_least=least, **{name: value})
        if settings.size is not None:
            check_counts(at_least=32, height=settings.size[0], width=settings.size[1])
    except ValueError as error:
        raise BenchmarkError(str(error)) from None
    drawn = (settings.size, settings.boxes, settings.classes)
    if settings.data and any(value is not None for value in drawn):
        raise BenchmarkError(
            "size, boxes and classes are those of images that are drawn, and data loads some; "
            "leave the ones or the other out"
        )
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.partition(":")[0] not in MEMORY_OF:
        raise BenchmarkError(f"device={device}: expected cpu, cuda or cuda:1")
    problems = [*device_checks.problems(device, 1, None)]
    if problems:
        raise BenchmarkError("; ".join(problems).replace("train.device", "device"))
    return torch.device(device)
