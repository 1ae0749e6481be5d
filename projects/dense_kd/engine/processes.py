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
from ..checkpoint import FINAL_CHECKPOINT, write_text
from ..errors import EXIT_PREEMPTED, DenseKDError, Preempted
from .process_bars import ProcessBars
from .progress import wants_bar
from .stopping import StopSignals

logger = logging.getLogger(__name__)

__all__ = ["Run", "TrainingError", "clock", "read_metrics", "say", "train_together"]

PROGRESS_PERIOD = 12.0  # seconds between two lines
BAR_PERIOD = 2.0  # seconds between two states of a bar
_POLL_PERIOD = 0.2
_GRACE = 10.0  # seconds that a process gets to end itself
_LOG_LINES = 20
_RECORD = "training.json"
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
        environment: variables of its process, besides those of this one.
        metrics: of the evaluation, {"bbox/AP": ...}; None is what COCO does not define.
        seconds: wall-clock time of the process, of the last one if it was gone on with.
    """

    title: str
    folder: Path
    command: list[str]
    iterations: int
    settings: dict[str, Any]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0

    @property
    def log(self) -> Path:
        """The file that its output goes to."""
        return self.folder / "stdout.txt"


def train_together(
    runs: list[Run],
    fresh: bool = False,
    *,
    at_once: int | None = None,
    finished: Callable[[Run], None] | None = None,
    failed: Callable[[Run, TrainingError], None] | None = None,
    then: Callable[[Run], list[Run]] | None = None,
) -> None:
    """Train ``runs`` at the same time, and fill in their metrics and seconds.

    A run that was finished with the same settings before is not repeated unless ``fresh``, and one
    that was stopped goes on with its last checkpoint. A signal of :data:`.stopping.SIGNALS` is
    handed on to them.

    Args:
        runs: in the order in which they are started.
        fresh: repeat them in any case.
        at_once: so many at a time; None is all.
        finished: called with each one that is done, or used again, as soon as it is.
        failed: called with each one that fails, while the others go on; None ends them, too.
        then: called after ``finished``; gives the runs that needed this one, which come after those
            that wait.

    Raises:
        Preempted: a training was told to stop, as the others are then; they can go on.
        TrainingError: a training failed, and the others were stopped; or a folder holds what is
            no training.
    """
    waiting: list[Run] = []
    bars = ProcessBars() if _on_terminal() else None

    def wait(more: list[Run]) -> None:
        for run in more:
            if not fresh and _reuse(run):
                done(run)
                continue
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
                    running.append((run, _start(run, fresh)))
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


def _reuse(run: Run) -> bool:
    record = _read_record(run.folder)
    if not record.get("finished") or not (run.folder / FINAL_CHECKPOINT).is_file():
        return False
    if record["settings"] != run.settings:
        changed = _changed(run, record)
        say(f"{run.title}: trained before with another {changed}; training again")
        return False
    run.metrics = _evaluation(run)
    run.seconds = record["seconds"]
    say(
        f"{run.title}: trained {record['finished']} with the same settings, used again "
        f"({run.folder}; --fresh trains everything again)"
    )
    return True


def _changed(run: Run, record: dict[str, Any]) -> str:
    return " and ".join(k for k, v in run.settings.items() if record["settings"].get(k) != v)


def _start(run: Run, fresh: bool) -> subprocess.Popen[bytes]:
    goes_on = not fresh and _was_stopped(run)
    if not goes_on and run.folder.is_dir() and any(run.folder.iterdir()):
        if not (run.folder / _RECORD).is_file():
            raise TrainingError(
                f"{run.folder} holds something else than a training of this command; "
                "give another folder with --output, or remove it"
            )
        shutil.rmtree(run.folder)  # metrics would be appended to those of the earlier training
    run.folder.mkdir(parents=True, exist_ok=True)
    _write_record(run, finished=None)
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
    record = _read_record(run.folder)
    if not record or record.get("finished") or not (run.folder / "last_checkpoint").is_file():
        return False
    if record["settings"] != run.settings:
        changed = _changed(run, record)
        say(f"{run.title}: begun before with another {changed}; beginning again")
        return False
    return True


def _finish(run: Run, code: int, seconds: float) -> None:
    if code != 0:
        raise _failure(run, f"failed with exit code {code}")
    if not (run.folder / FINAL_CHECKPOINT).is_file():
        raise _failure(run, f"ended without {FINAL_CHECKPOINT}")
    run.seconds = seconds
    run.metrics = _evaluation(run)
    _write_record(run, finished=f"{datetime.datetime.now():%Y-%m-%d %H:%M}")
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


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / _RECORD).read_text())
        return record if isinstance(record.get("settings"), dict) else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _write_record(run: Run, finished: str | None) -> None:
    record = {"finished": finished, "seconds": run.seconds, "settings": run.settings}
    write_text(run.folder / _RECORD, json.dumps(record, indent=2) + "\n")
