"""Trainings as processes: they run at the same time, are watched, used again and gone on with."""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..arguments import is_integer, is_number
from ..checkpoint import FINAL_CHECKPOINT
from ..errors import EXIT_PREEMPTED, DenseKDError, Preempted
from .process_bars import ProcessBars
from .progress import wants_bar
from .stopping import StopSignals
from .training_record import RECORD, TrainingRecord, holds_weights, read_record, write_record

logger = logging.getLogger(__name__)

__all__ = ["Run", "TrainingError", "check_kept", "clock", "read_metrics", "say", "train_together"]

PROGRESS_PERIOD = 12.0  # seconds between two lines
BAR_PERIOD = 2.0  # seconds between two states of a bar
_POLL_PERIOD = 0.2
_GRACE = 10.0  # seconds that a process gets to end itself
_LOG_LINES = 20
_RESUME = "--resume"


class TrainingError(DenseKDError, RuntimeError):
    """A training failed, so that what needs it cannot go on; the message says why."""


@dataclasses.dataclass
class Run:
    """One training and its evaluation.

    Attributes:
        title: for messages.
        folder: its output_dir.
        command: arguments of this Python interpreter; with ``--resume`` added, it goes on.
        iterations: max_iter.
        settings: all that the result depends on, in JSON types.
        may_differ: dotted names of settings that an earlier training is used with all the same,
            such as ``versions``, or ``config.train.init_checkpoint`` beside a digest of the file.
        environment: variables of its process, besides those of this one.
        metrics: of the evaluation, {"bbox/AP": ...}; None is what COCO does not define.
        seconds: wall-clock time of the process, of the last one if it was gone on with.
    """

    title: str
    folder: Path
    command: list[str]
    iterations: int
    settings: dict[str, Any]
    may_differ: tuple[str, ...] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    @property
    def log(self) -> Path:
        """The file that its output goes to."""
        return self.folder / "stdout.txt"


def train_together(
    runs: list[Run],
    fresh: bool | None = None,
    *,
    again: bool = False,
    at_once: int | None = None,
    finished: Callable[[Run], None] | None = None,
    failed: Callable[[Run, TrainingError], None] | None = None,
    then: Callable[[Run], list[Run]] | None = None,
) -> None:
    """Train ``runs`` at the same time, and fill in their metrics and seconds.

    A run that was finished with the same settings before is not repeated unless ``fresh``, and one
    that was stopped goes on with its last checkpoint. One with other settings is left as it is,
    and an error. A signal of :data:`.stopping.SIGNALS` is handed on to them.

    Args:
        runs: in the order in which they are started.
        fresh: repeat them in any case, as ``--fresh`` of a command asks for; None: it has no such
            option, which messages tell of otherwise.
        again: what was trained with other settings is removed, and trained again.
        at_once: so many at a time; None is all.
        finished: called with each one that is done, or used again, as soon as it is.
        failed: called with each one that fails, while the others go on; None ends them, too.
        then: called after ``finished``; gives the runs that needed this one, which come after those
            that wait.

    Raises:
        Preempted: a training was told to stop, as the others are then; they can go on.
        TrainingError: a training failed, and the others were stopped; or a folder holds what is
            no training, or another one (see :func:`check_kept`).
    """
    waiting: list[Run] = []
    bars = ProcessBars() if _on_terminal() else None

    def wait(more: list[Run]) -> None:
        for run in more:
            if not fresh and _reuse(run, fresh):
                done(run)
                continue
            if not (fresh or again):
                check_kept(run, fresh)
            waiting.append(run)
            if bars:
                bars.expect(run.title, run.iterations)

    def done(run: Run) -> None:
        if finished:
            finished(run)
        wait(then(run) if then else [])

    wait(runs)
    processes: list[tuple[Run, subprocess.Popen[bytes]]] = []
    signals = StopSignals(
        lambda number: _tell(processes, number), end=lambda: _stop([p for _, p in processes], 0.0)
    )
    stopped: list[str] = []
    begun: dict[str, float] = {}
    shown = time.monotonic()
    period = BAR_PERIOD if bars else PROGRESS_PERIOD
    try:
        with signals:
            running: list[tuple[Run, subprocess.Popen[bytes]]] = []
            while running or (waiting and not (stopped or signals.received)):
                while (
                    waiting
                    and not (stopped or signals.received)
                    and (at_once is None or len(running) < at_once)
                ):
                    run = waiting.pop(0)
                    begun[run.title] = time.monotonic()
                    running.append((run, _start(run, bool(fresh))))
                    processes.append(running[-1])
                time.sleep(_POLL_PERIOD)
                for run, process in list(running):
                    if process.poll() is not None:
                        running.remove((run, process))
                        if bars:
                            bars.remove(run.title)
                        told = signals.received or (signal.SIGTERM.name if stopped else "")
                        if _was_preempted(process.returncode, told):
                            stopped.append(run.title)
                            _tell(running, signal.SIGTERM)
                        else:
                            seconds = time.monotonic() - begun[run.title]
                            try:
                                _finish(run, process.returncode, seconds)
                            except TrainingError as error:
                                if failed is None:
                                    raise
                                failed(run, error)
                                continue
                            done(run)
                if time.monotonic() - shown >= period:
                    shown = time.monotonic()
                    for run, _ in running:
                        if bars:
                            bars.show(run.title, read_metrics(run.folder))
                        else:
                            say(_progress(run, shown - begun[run.title]))
    finally:
        _stop([process for _, process in processes])
        if bars:
            bars.close()
    if stopped or signals.received:
        what = f"{' and '.join(stopped)} stopped" if stopped else "stopped after a training"
        cause = signals.received or "a signal or a time limit of their own"
        message = f"{what} by {cause}; the same command goes on (exit code {EXIT_PREEMPTED})"
        say(message)
        raise Preempted(message)


def _tell(processes: list[tuple[Run, subprocess.Popen[bytes]]], number: int) -> None:
    for _, process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _was_preempted(code: int, told: str) -> bool:
    """Whether a training ended as it was told to, or did not listen yet when it was told."""
    number = signal.Signals[told] if told else None
    return code == EXIT_PREEMPTED or (number is not None and code in (-number, 128 + number))


_DAMAGED: set[Path] = set()  # files that were warned of


def _on_terminal() -> bool:
    """Whether who waits looks at a terminal."""
    return wants_bar("auto") and sys.stdout.isatty()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.json by iteration; a number that is not finite becomes None.

    detectron2 writes what is due at once, newest first, so a line may be of an earlier iteration
    than the one above it. What a run did again that was stopped behind its last checkpoint counts
    once, which shows in entries that are there already. Lines and entries that no run writes are
    left out, which is logged once; the last line may be unfinished.
    """
    path = folder / "metrics.json"
    before: list[dict[str, Any]] = []  # of the run until it was stopped, by iteration
    records: list[dict[str, Any]] = []
    newest: dict[str, int] = {}  # iteration of each entry of these
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    wrong = 0
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            wrong += number < len(lines)
            continue
        if not isinstance(record, dict) or not is_integer(record.get("iteration", 0)):
            wrong += 1
            continue
        known = {k: v for k, v in record.items() if v is None or is_number(v)}
        wrong += len(known) < len(record)
        finite = {k: v if v is None or math.isfinite(v) else None for k, v in known.items()}
        iteration = _iteration_of(finite)
        entries = finite.keys() - {"iteration"}
        if any(newest.get(entry, -1) >= iteration for entry in entries):
            before, records, newest = sorted([*before, *records], key=_iteration_of), [], {}
        while before and _iteration_of(before[-1]) >= iteration:
            before.pop()
        records.append(finite)
        newest.update(dict.fromkeys(entries, iteration))
    if wrong and path not in _DAMAGED:
        _DAMAGED.add(path)
        logger.warning(f"{path} is damaged: {wrong} of its {len(lines)} lines are not as written")
    return sorted([*before, *records], key=_iteration_of)


def _iteration_of(record: dict[str, Any]) -> int:
    return int(record.get("iteration") or 0)


def say(message: str) -> None:
    """Print a line with the time of day, at once also when the output is a file; above bars."""
    line = f"[{datetime.datetime.now():%H:%M:%S}] {message}"
    if _on_terminal():
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
    else:  # not with the lock of bars, which forks share, and may have died with
        print(line, flush=True)


def clock(seconds: float) -> str:
    """Minutes and seconds, as 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def check_kept(run: Run, fresh: bool | None = None) -> None:
    """Whether what was trained in the folder of ``run`` is used, or gone on with.

    Args:
        run: that would be trained.
        fresh: as of :func:`train_together`.

    Raises:
        TrainingError: it would have to be removed; the message says what differs, and what to do.
    """
    record = read_record(run.folder)
    if record is None or not holds_weights(run.folder):
        return
    changes = record.changes(run.settings, run.may_differ)
    what = f"{run.folder} holds a training of the {run.title} that was "
    what += f"finished {record.finished}" if record.finished else "begun"
    if not record.settings:
        why = f"by what is not known: {run.folder / RECORD} cannot be read"
    elif changes:
        lines = "".join(f"\n    {each}" for each in _listed(changes))
        why = f"with other settings than these (there -> now):{lines}"
    elif record.finished and not (run.folder / FINAL_CHECKPOINT).is_file():
        why = f"but {FINAL_CHECKPOINT} is not there"
    else:
        return
    everything = ", or --fresh to train everything again" if fresh is not None else ""
    raise TrainingError(
        f"{what} {why}\nIt is not removed unasked: put this back to use it, or remove that folder "
        f"to train it again{everything}"
    )


def _listed(changes: dict[str, str]) -> list[str]:
    return [
        f"{name}: {change}" if change else f"another {name}" for name, change in changes.items()
    ]


def _reuse(run: Run, fresh: bool | None) -> bool:
    record = read_record(run.folder)
    if record is None or not record.finished or not (run.folder / FINAL_CHECKPOINT).is_file():
        return False
    if record.changes(run.settings, run.may_differ):
        return False
    run.metrics = _evaluation(run)
    run.seconds = record.seconds
    hint = "" if fresh is None else "; --fresh trains everything again"
    how = _noted(run, record) or "the same settings"
    say(f"{run.title}: trained {record.finished} with {how}, used again ({run.folder}{hint})")
    return True


def _noted(run: Run, record: TrainingRecord) -> str:
    """What is other than it was and changes the numbers a little, if a run allows for it."""
    parts = dict.fromkeys(
        name.split(".")[0]
        for name in record.changes(run.settings)
        if name.split(".")[0] in run.may_differ
    )
    return f"other {' and '.join(parts)}" if parts else ""


def _start(run: Run, fresh: bool) -> subprocess.Popen[bytes]:
    goes_on = not fresh and _was_stopped(run)
    if not goes_on and run.folder.is_dir() and any(run.folder.iterdir()):
        record = read_record(run.folder)
        if record is None:
            raise TrainingError(
                f"{run.folder} holds something else than a training of this command; "
                "give another folder with --output, or remove it"
            )
        if not fresh and holds_weights(run.folder):
            changes = record.changes(run.settings, run.may_differ)
            what = ", ".join(_listed(changes)) or f"no {FINAL_CHECKPOINT} left"
            say(f"{run.title}: trained before with {what}; training again")
        shutil.rmtree(run.folder)  # metrics would be appended to those of the earlier training
    run.folder.mkdir(parents=True, exist_ok=True)
    _note(run, finished=None)
    threads = run.environment.get("OMP_NUM_THREADS", "all")
    what = "going on with" if goes_on else "training"
    say(f"{run.title}: {what} {run.iterations} iterations, {threads} thread(s), log {run.log}")
    with open(run.log, "ab" if goes_on else "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-u", *run.command, *([_RESUME] if goes_on else [])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **run.environment},
        )


def _was_stopped(run: Run) -> bool:
    """Whether the folder holds a checkpoint of this very training, which did not finish."""
    record = read_record(run.folder)
    if record is None or record.finished or not (run.folder / "last_checkpoint").is_file():
        return False
    if record.changes(run.settings, run.may_differ):
        return False
    how = _noted(run, record)
    if how:
        say(f"{run.title}: begun with {how}")
    return True


def _finish(run: Run, code: int, seconds: float) -> None:
    if code != 0:
        raise _failure(run, f"failed with exit code {code}")
    if not (run.folder / FINAL_CHECKPOINT).is_file():
        raise _failure(run, f"ended without {FINAL_CHECKPOINT}")
    run.seconds = seconds
    run.metrics = _evaluation(run)
    _note(run, finished=f"{datetime.datetime.now():%Y-%m-%d %H:%M}")
    ap = run.metrics["bbox/AP"]
    result = "no detections" if ap is None else f"AP {ap:.1f}"
    say(f"{run.title}: done in {clock(seconds)}, {result}")


def _evaluation(run: Run) -> dict[str, float | None]:
    """What detectron2's EvalHook logs after the last iteration."""
    for record in reversed(read_metrics(run.folder)):
        if "bbox/AP" in record:
            return {k: v for k, v in record.items() if k.startswith("bbox/")}
    raise _failure(run, "logged no bbox/AP in metrics.json")


def _failure(run: Run, what: str) -> TrainingError:
    lines = run.log.read_text(errors="replace").splitlines() if run.log.exists() else []
    tail = "\n".join(f"    {line}" for line in lines[-_LOG_LINES:])
    return TrainingError(f"{run.title} {what}. The end of {run.log}:\n{tail}")


def _progress(run: Run, seconds: float) -> str:
    records = [r for r in read_metrics(run.folder) if "total_loss" in r]
    position, rest = "starting", ""
    if records:
        done = records[-1]["iteration"] + 1
        position = f"{done:>5}/{run.iterations}  total_loss {records[-1]['total_loss']:.3f}"
        eta = records[-1].get("eta_seconds")
        if done >= run.iterations:
            rest = "  evaluating"
        elif eta is not None:
            rest = f"  {clock(eta)} left"
    return f"{run.title:18} {position}{rest}  ({clock(seconds)} so far)"


def _stop(processes: list[subprocess.Popen[bytes]], grace: float = _GRACE) -> None:
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _note(run: Run, finished: str | None) -> None:
    write_record(run.folder, TrainingRecord(finished, run.seconds, run.settings))
