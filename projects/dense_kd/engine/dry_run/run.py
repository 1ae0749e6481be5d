"""The dry run: builds all parts of a run as it does itself, and tries each of them."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.utils.env import seed_all_rng
from omegaconf import DictConfig
from torch import nn

from ...arguments import is_integer
from ...checkpoint import AtomicCheckpointer
from ...distiller import Distiller
from ...feature_teacher import FeatureTeacher
from ...options import check_counts
from ...teacher import Teacher
from ...teacher_cache import IN_MEMORY
from ..building import build_optimizer, build_training_model
from ..checks import RunError, check_run
from ..checks.data import check_teacher_classes
from ..checks.tree import PARTS, calls_of, select
from ..loaders import load_evaluation, load_training
from .attempts import Attempts
from .data import annotated, batch_facts, data_facts, data_warnings, first_batch, first_images
from .evaluating import evaluate_part, evaluator_in
from .losses import LossPass, loss_pass
from .memory import PeakMemory
from .models import model_facts
from .results import DryRun
from .schedule import schedule
from .steps import timed_steps
from .teacher import teacher_score, teacher_warnings
from .unchanged import collected_warnings, unchanged

_NOTHING_TO_TRY = ("the data", "the model", "losses", "steps", "an evaluation")


def dry_run(
    cfg: DictConfig,
    *,
    num_images: int = 8,
    num_steps: int = 3,
    num_processes: int = 1,
    batch_size: int | None = None,
) -> DryRun:
    """Try a run: data, weights, losses, gradients, some iterations, one evaluation.

    All is built as :func:`dense_kd.engine.train` builds it, and tried in this process. Nothing is
    written to ``train.output_dir``; the config, the random generators and detectron2's catalogs
    are left as they were. Where ``train.device`` is not there, which is a problem, the rest is
    tried on the CPU.

    Args:
        cfg: of the run, with its overrides.
        num_images: of the test set, for the teacher and the evaluation.
        num_steps: iterations whose time is measured, after one that warms up.
        num_processes: of the run; one of them is tried, with its part of the batch.
        batch_size: images of the tried batches; None: those of one process.
    """
    check_counts(num_images=num_images, num_steps=num_steps, num_processes=num_processes)
    if batch_size is not None:
        check_counts(batch_size=batch_size)
    with unchanged(), collected_warnings() as warnings, tempfile.TemporaryDirectory() as folder:
        known = _config_problems(cfg, num_processes)
        if any(not isinstance(cfg.get(part), DictConfig) for part in PARTS):
            return DryRun("none", problems=known, not_tried=[*_NOTHING_TO_TRY])
        tried = _Tried(cfg, known, folder, num_images, num_steps)
        tried.set_up(num_processes, batch_size)
        tried.data()
        tried.schedule()
        tried.weights()
        tried.evaluation()
        tried.losses_and_steps()
        result, attempts = tried.result, tried.attempts
        result.problems, result.not_tried = attempts.problems, attempts.not_tried
        result.warnings += [text for text in warnings if text not in result.warnings]
        return result


def _config_problems(cfg: DictConfig, num_processes: int) -> list[str]:
    try:
        check_run(cfg, "train", num_processes=num_processes)
    except RunError as error:
        return error.problems
    return []


class _Tried:
    """A run of which one part after the other is tried; what failed is None."""

    def __init__(
        self, cfg: DictConfig, known: list[str], folder: str, num_images: int, num_steps: int
    ):
        self.given, self.cfg = cfg, copy.deepcopy(cfg)
        self.known, self.attempts = known, Attempts(known)
        self.folder, self.num_images, self.num_steps = folder, num_images, num_steps
        self.result = DryRun(str(self.cfg.train.get("device", "cpu")))
        self.model: nn.Module | None = None
        self.trainable: nn.Module | None = None  # the model, once its teacher is loaded
        self.batch: list[dict[str, Any]] | None = None
        self.batches: Any = None
        self.test_batches: list[list[dict[str, Any]]] | None = None
        self.test_images: Any = None

    def set_up(self, num_processes: int, batch_size: int | None) -> None:
        """Change the copy of the config so that it can be tried here."""
        train, notes, attempts = self.cfg.train, self.result.warnings, self.attempts
        if any(problem.startswith("train.device") for problem in self.known):
            train.device = "cpu"
            notes.append(f"train.device={self.given.train.get('device')}: tried on the CPU instead")
        self.result.device = train.get("device", "cpu")
        if select(train, "amp.enabled") is True and select(train, "amp.dtype") != "bfloat16":
            if torch.device(train.device).type != "cuda":
                train.amp.enabled = False
                notes.append("train.amp.dtype=float16 is not tried: it needs a GPU")
        files = []
        for place, teacher in calls_of(self.cfg.model, "model", (Teacher, FeatureTeacher)):
            file = f"{place}.weights"
            if any(problem.startswith(file) for problem in self.known):
                files.append(file)
                teacher.weights = None
                notes.append(
                    f"without {file}, losses and gradients are those of a teacher with random "
                    "numbers"
                )
        for _, teacher in calls_of(self.cfg.model, "model", Teacher):
            if isinstance(select(teacher, "cache"), str):
                # The folder is for the run.
                teacher.update(cache=IN_MEMORY, cache_by="image")
        # What was replaced has no consequences.
        replaced = ("train.device", "train.amp.dtype=float16", "train.output_dir", *files)
        attempts.known = [text for text in self.known if not text.startswith(replaced)]
        for part in ("train", "unlabelled"):
            loader = select(self.cfg, f"dataloader.{part}")
            if isinstance(loader, DictConfig) and isinstance(loader.get("total_batch_size"), int):
                share = max(loader.total_batch_size // num_processes, 1)
                loader.total_batch_size = batch_size or share
        seed = select(train, "seed")
        seed_all_rng(max(seed, 0) if is_integer(seed) else 0)

    def data(self) -> None:
        """Both loaders, and a batch of each."""
        run, result = self.attempts.run, self.result
        train = run("the training data", lambda: load_training(self.cfg), place="dataloader.train")
        if train is not None:
            result.train = data_facts(self.cfg, "train", train.images)
            result.warnings += data_warnings(result.train)
            self.batch = run("a batch of dataloader.train", self._first_batch, train.loader)
            if self.batch is not None:
                result.train.batch = batch_facts(self.cfg, "train", self.batch)
        if select(self.cfg, "dataloader.test") is None:
            return
        test = run(
            "the test data", lambda: load_evaluation(self.cfg, "train"), place="dataloader.test"
        )
        if test is None:
            return
        result.test, self.test_images = data_facts(self.cfg, "test", test.images), test.images
        self.test_batches = run(
            "a batch of dataloader.test", lambda: first_images(test.loader, self.num_images)
        )
        if self.test_batches is not None:
            batch = list(itertools.chain(*self.test_batches))
            result.test.batch = batch_facts(self.cfg, "test", batch)

    def _first_batch(self, loader: Iterable[Any]) -> list[dict[str, Any]]:
        self.batches = iter(loader)
        return first_batch(self.batches)

    def schedule(self) -> None:
        """The recipe, as it is given."""
        train = self.result.train
        self.result.schedule = self.attempts.run(
            "the schedule",
            lambda: schedule(self.given, train.num_images if train else None),
            place=("lr_multiplier", "optimizer", "train.", "dataloader."),
        )

    def weights(self) -> None:
        """The model, its teacher's file, and what it starts from."""
        run, cfg = self.attempts.run, self.cfg
        self.memory = PeakMemory(torch.device(cfg.train.device))
        self.model = run(
            "the model", functools.partial(build_training_model, self.cfg), place="model."
        )
        if self.model is None:
            return
        self.result.models = model_facts(self.given, self.model)
        start = select(cfg, "train.init_checkpoint")
        if start:
            run(
                "train.init_checkpoint",
                lambda model: self._start_from(start, model),
                self.model,
                place="train.init_checkpoint",
            )
        if isinstance(self.model, Distiller):
            self.trainable = run("the teacher's weights", self._prepare, self.model)
        else:
            self.trainable = self.model

    def _start_from(self, path: str, model: nn.Module) -> None:
        partial = self.cfg.train.get("init_partial", False)
        checkpointer = AtomicCheckpointer(model, partial=partial, save_to_disk=False)
        checkpointer.resume_or_load(path, resume=False)

    def _prepare(self, model: Distiller) -> Distiller:
        if select(self.cfg, "dataloader.unlabelled") is not None:
            model.check_unlabelled()
        model.load_teacher()
        for teacher in model.teachers.values():
            check_teacher_classes(self.cfg, "train", teacher)
        model.prepare_training()
        return model

    def evaluation(self) -> None:
        """The teachers' scores, and one evaluation of the model as it starts."""
        run, result = self.attempts.run, self.result
        for place in self.model.teachers if isinstance(self.model, Distiller) else ():
            has_none = any(text.startswith(f"model.{place}.weights") for text in self.known)
            loaded = None if has_none else self.trainable
            what = "the teacher's score" if place == "teacher" else f"the score of {place}"
            score = run(what, functools.partial(self._score, place), loaded, self.test_batches)
            if score is not None:
                result.teachers[place] = score
                result.warnings += teacher_warnings(place, score)
        if select(self.cfg, "dataloader.evaluator") is None:
            return
        evaluator = run(
            "the evaluator",
            lambda _: evaluator_in(self.cfg, self.folder),
            result.test,
            place=("dataloader.evaluator", "dataloader.test"),
        )
        found = run("an evaluation", self._evaluate, evaluator, self.model, self.test_batches)
        if found is not None:
            result.evaluation, warnings = found
            result.warnings += warnings

    def _score(self, place: str, model: Distiller, batches: list[list[dict[str, Any]]]) -> Any:
        images: Sequence[dict[str, Any]] | None = annotated(self.test_images, batches)
        if images is None:
            images = [{"annotations": []} for batch in batches for _ in batch]
        return teacher_score(self.cfg, model, place, batches, images)

    def _evaluate(self, evaluator: Any, model: nn.Module, batches: Any) -> Any:
        number = self.result.test.num_images if self.result.test else None
        all_images = number is not None and sum(map(len, batches)) >= number
        return evaluate_part(evaluator, model, batches, self.folder, all_images)

    def losses_and_steps(self) -> None:
        """Losses and gradients of a batch, then iterations of the trainer."""
        run, result = self.attempts.run, self.result
        found: LossPass | None = run(
            "losses and gradients",
            lambda model, batch: loss_pass(self.cfg, model, batch),
            self.trainable,
            self.batch,
            place="train.",
        )
        finite = None
        if found is not None:
            result.levels, result.input_shape = found.levels, found.input_shape
            result.losses, result.balance = found.losses, found.balance
            result.warnings += found.warnings
            self.attempts.add(*found.problems)
            if found.gradient_norm is not None and math.isfinite(found.gradient_norm):
                finite = found
        optimizer = run(
            "the optimizer",
            lambda model: build_optimizer(self.cfg, model),
            self.model,
            place="optimizer",
        )
        result.step = run(
            "steps of the optimizer",
            self._steps,
            optimizer,
            finite,
            place=("train.", "lr_multiplier"),
        )

    def _steps(self, optimizer: torch.optim.Optimizer, found: LossPass) -> Any:
        assert self.trainable is not None and self.batch is not None
        if isinstance(self.trainable, Distiller) and self.trainable.kd.balance is not None:
            self.trainable.kd.balance.probe = 0  # as in most iterations
        batches = itertools.chain([self.batch], self.batches)
        facts = timed_steps(
            self.cfg, self.trainable, optimizer, batches, self.memory, self.num_steps
        )
        facts.gradient_norm = found.gradient_norm
        return facts
