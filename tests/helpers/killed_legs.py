"""Runs that are killed at chosen points and resumed, each leg in a process of its own.

A leg is forked by a server that has imported all and has run nothing: for TorchScript, autograd and
whatever else a process finds out in its first steps it is a new process, without the seconds that
importing takes. It kills itself, and all that it has started, by SIGKILL where it is told to.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from fvcore.nn import sigmoid_focal_loss_jit
from torch import Tensor

from dense_kd.checkpoint import writing
from dense_kd.detectors import retinanet
from dense_kd.engine import Trainer, launch, train
from dense_kd.engine.checks.files import last_checkpoint
from dense_kd.evaluation import COCOEvaluator

from .killed_runs import ITERATIONS, VARIANTS, config_of, make_images, register_images
from .two_processes import forks

TIMEOUT = 120.0  # seconds of a leg
_LOG = "leg.txt"
_IMPORTED_IN = os.getpid()


class Point(NamedTuple):
    """Where a leg is killed: when it does ``what`` for the ``number``-th time in an iteration."""

    rank: int
    iteration: int
    what: str
    number: int


class Runs:
    """Of :data:`.killed_runs.VARIANTS`, each on a few images that are made once."""

    def __init__(self, root: Path):
        """
        Args:
            root: an empty folder.
        """
        self.root = root
        make_images(root)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["helpers.killed_server"])

    def leg(self, name: str, folder: Path, point: Point | None = None, **options: Any) -> int:
        """The exit code of a process that begins a run, or goes on with it.

        Args:
            name: of the variant.
            folder: of the run.
            point: where it is killed.
            options: see :func:`_leg`.
        """
        arguments = (name, self.root, folder, point)
        # The server would not find the tests otherwise.
        with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
            process = self._context.Process(target=_leg, args=arguments, kwargs=options)
            process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.exitcode in (0, -signal.SIGKILL), (folder / _LOG).read_text()[-4000:]
        return process.exitcode

    def whole(self, name: str, **options: Any) -> tuple[Path, list[Point]]:
        """The folder of a run that nobody stops, and all points at which it can be killed."""
        folder = Path(tempfile.mkdtemp(dir=self.root))
        assert self.leg(name, folder, **options) == 0
        files = sorted(folder.glob("points_*.json"))
        return folder, [Point(*each) for file in files for each in json.loads(file.read_text())]

    def killed(
        self, name: str, points: list[Point], kills: int, draw: random.Random, **options: Any
    ) -> tuple[Path, list[Point]]:
        """The folder of a run that is killed some times and then left alone, and where it was.

        Args:
            name: of the variant.
            points: of :meth:`whole`.
            kills: how often; each comes later than the last checkpoint, and they are spread over
                the iterations.
            draw: chooses the points.
            options: see :func:`_leg`.
        """
        folder = Path(tempfile.mkdtemp(dir=self.root))
        chosen: list[Point] = []
        for kill in range(kills):
            begin = _iterations_done(folder)
            end = max(begin + 1, (kill + 1) * ITERATIONS // kills)
            iteration = draw.randrange(begin, end)
            whats = sorted({p.what for p in points if p.iteration == iteration})
            what = draw.choice(whats)
            chosen.append(
                draw.choice([p for p in points if (p.iteration, p.what) == (iteration, what)])
            )
            assert self.leg(name, folder, chosen[-1], **options) == -signal.SIGKILL, chosen
        assert self.leg(name, folder, **options) == 0
        return folder, chosen


def _iterations_done(folder: Path) -> int:
    """By the last checkpoint."""
    last = last_checkpoint(folder)
    return int(last[-11:-4]) + 1 if last else 0


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of all that a run ends with: {place in the final checkpoint: digest}."""
    content = torch.load(folder / "model_final.pth", weights_only=True)
    parts = {"model": content["model"], "iteration": content["iteration"], **content["trainer"]}
    found = {}
    for name, part in parts.items():
        digest = hashlib.sha256()
        _feed(digest.update, part)
        found[name] = digest.hexdigest()
    return found


def _feed(update: Callable[[bytes], Any], content: Any) -> None:
    if isinstance(content, Tensor):
        update(f"{content.dtype} {tuple(content.shape)}".encode())
        update(
            content.contiguous().view(torch.uint8).numpy().tobytes()
            if content.dim()
            else repr(content.item()).encode()
        )
    elif isinstance(content, dict):
        for key, value in content.items():
            update(repr(key).encode())
            _feed(update, value)
    elif isinstance(content, (list, tuple)):
        update(f"{len(content)}".encode())
        for value in content:
            _feed(update, value)
    else:
        update(repr(content).encode())


def _leg(
    name: str, root: Path, folder: Path, point: Point | None, *, scripted: bool = False
) -> None:
    """What the process does.

    Args:
        name, root, folder, point: see :class:`Runs`.
        scripted: RetinaNet's focal loss is fvcore's, by TorchScript.
    """
    assert os.getpid() != _IMPORTED_IN, "the server has not imported this module"
    os.setsid()  # a group, with all that it starts
    multiprocessing.set_start_method("fork", force=True)  # of workers, as in a run of a user
    log = os.open(folder / _LOG, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(log, number)
    variant = VARIANTS[name]
    register_images(root)
    cfg = config_of(variant, folder, root / f"{name}.pth")
    with (
        mock.patch.object(retinanet, "focal_loss", _scripted)
        if scripted
        else contextlib.nullcontext()
    ):
        if variant.num_processes == 1:
            _train(cfg, point)
        else:
            with forks():
                launch(_train, variant.num_processes, dist_url="auto", args=(cfg, point))


def _scripted(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    one_hot = (labels[..., None] == torch.arange(logits.shape[-1])).to(logits.dtype)
    loss = sigmoid_focal_loss_jit(logits, one_hot, alpha=alpha, gamma=gamma, reduction="none")
    return loss.sum(dim=-1)[labels >= 0].sum()


def _train(cfg: Any, point: Point | None) -> None:
    torch.set_num_threads(1)
    marks = _Marks(point)
    seed_all_rng(cfg.train.seed + comm.get_rank())
    with marks.made():
        train(argparse.Namespace(resume=True), cfg)
    passed = json.dumps(marks.passed)
    Path(cfg.train.output_dir, f"points_{comm.get_rank()}.json").write_text(passed)


class _Marks:
    """The points that a process passes; it dies at one of them."""

    def __init__(self, last: Point | None):
        self.last = last
        self.rank = comm.get_rank()
        self.iteration = -1
        self.passed: list[Point] = []
        self._counts: Counter[tuple[int, str]] = Counter()

    def pass_by(self, what: str) -> None:
        if self.iteration < 0:
            return
        self._counts[self.iteration, what] += 1
        number = self._counts[self.iteration, what]
        self.passed.append(Point(self.rank, self.iteration, what, number))
        if self.passed[-1] == self.last:
            os.killpg(0, signal.SIGKILL)

    @contextlib.contextmanager
    def made(self) -> Iterator[None]:
        """By patching what a training calls."""
        run_step = Trainer.run_step

        def counted_step(trainer: Trainer) -> None:
            self.iteration = trainer.iter
            self.pass_by("step")
            run_step(trainer)
            self.pass_by("step")

        with contextlib.ExitStack() as stack:
            for owner, attribute, what in (
                (Trainer, "_next_batch", "step"),
                (Trainer, "_gradient_norm", "step"),
                (writing.os, "replace", "rename"),
                (writing.os, "fsync", "save"),
                (COCOEvaluator, "process", "evaluation"),
                (COCOEvaluator, "evaluate", "evaluation"),
            ):
                marked = self._before_and_after(getattr(owner, attribute), what)
                stack.enter_context(mock.patch.object(owner, attribute, marked))
            stack.enter_context(mock.patch.object(Trainer, "run_step", counted_step))
            stack.enter_context(mock.patch.object(writing, "open", self._open, create=True))
            yield

    def _before_and_after(self, function: Callable[..., Any], what: str) -> Callable[..., Any]:
        def marked(*args: Any, **kwargs: Any) -> Any:
            self.pass_by(what)
            result = function(*args, **kwargs)
            self.pass_by(what)
            return result

        return marked

    def _open(self, path: str, mode: str) -> _MarkedFile:
        return _MarkedFile(builtins.open(path, mode), self)


class _MarkedFile:
    """A file that is being written to, piece by piece."""

    def __init__(self, file: Any, marks: _Marks):
        self._file = file
        self._marks = marks

    def write(self, content: Any) -> int:
        self._marks.pass_by("save")
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _MarkedFile:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()
