"""``dense_kd.distill``: own images in, a distilled student out."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ..checkpoint import FINAL_CHECKPOINT, saving
from ..checkpoint.writing import printable
from ..data.registration import datasets_forgotten
from ..engine.processes import Run, clock, say, train_together
from ..engine.ranks import rank_of_environment
from ..evaluation.text import shown
from . import options as options_of
from .config_files import write_configs
from .errors import PipelineError
from .plan import Plan, make_plan
from .records import check_output, write_record
from .results import (
    METRICS_FILE,
    evaluate_detector,
    metrics_of,
    save_bare_student,
    summarize,
    write_page,
)
from .stages import check_trainings, fetch_weights, make_run, write_data
from .unlabelled import choose_score, forget_score

__all__ = ["distill"]

LOG = "log.txt"
PROBLEMS = "data_problems.txt"


def distill(data: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """Distil a small detector from a big one, on own images: ``dense-kd distill`` in Python.

    What was finished with the same data and options before is not done again, and what was
    stopped goes on. The output folder then holds for each training a config that repeats it
    (``teacher.py``, ``student.py``, ``distilled.py``) and a folder, ``distilled.pth`` (the bare
    student), ``metrics.json``, ``report.html`` and ``log.txt``.

    Args:
        data: a folder or file that :func:`dense_kd.data.folders.read_dataset` takes.
        options: those of :class:`.options.DistillOptions`, which has what each of them does.

    Returns:
        what is in ``metrics.json``; {} for ``dry_run``.

    Raises:
        DatasetError: the data is unusable.
        PipelineError: an option is wrong, weights cannot be fetched, or the output folder holds
            something else.
        TrainingError: a training failed, and the message ends with its log; or the output folder
            holds one with other settings, code or versions, which would have to be removed.
        Preempted: a signal came while a training ran, which has saved; the same call goes on.
    """
    rank = rank_of_environment(os.environ)
    if rank is not None:
        raise PipelineError(
            f"this is process {rank.rank} of {rank.world_size}, as RANK and WORLD_SIZE of the "
            "environment say (torchrun sets them): each would distil by itself. Start one, which "
            "starts the processes of its trainings (num_gpus=N, --num-gpus N)"
        )
    plan = make_plan(os.fspath(data), options_of.from_keywords(options))
    check_output(plan)
    check_trainings(plan)
    if plan.options.dry_run:
        print(printable("\n".join(plan.lines())), flush=True)
        return {}
    for detector in (plan.teacher, plan.student):
        fetch_weights(detector)
    plan.output.mkdir(parents=True, exist_ok=True)
    if plan.options.fresh:
        (plan.output / METRICS_FILE).unlink(missing_ok=True)
        forget_score(plan.output)
    write_record(plan)  # first: what holds none is not gone on with
    with _logged(plan.output / LOG), datasets_forgotten():
        return _carry_out(plan)


distill.__signature__ = options_of.signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter(
            "data", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="str | os.PathLike[str]"
        )
    ],
    "dict[str, Any]",
)


def _carry_out(plan: Plan) -> dict[str, Any]:
    start = time.monotonic()
    for line in plan.lines():
        say(line)
    write_data(plan)
    plan.data.problems.write(plan.output / PROBLEMS)
    configs = write_configs(plan)

    bare = {"teacher": configs["teacher"], "student": configs["student"]}
    bare["distilled"] = configs["student"]
    results: dict[str, Any] = {}
    runs: dict[str, Run] = {}
    if not plan.teacher.trained:
        say(f"teacher: evaluating {plan.teacher.weights}")
        weights = plan.teacher.weights
        found = evaluate_detector(plan, "teacher", "val", bare["teacher"], weights)
        results["teacher"] = {"val": found, "weights": weights}
    for name in plan.stages:
        if name not in configs:  # what it is to learn from depends on the teacher
            score = choose_score(
                results["teacher"]["weights"],
                configs["teacher"],
                plan.data,
                plan.devices.kind,
                plan.output,
            )
            say(f"{name}: score_thresh={score.value:g}, {score.reason}")
            configs = write_configs(plan, score)
        runs[name] = make_run(plan, name, configs[name])
        train_together([runs[name]], fresh=plan.options.fresh)
        weights = str(plan.output / name / FINAL_CHECKPOINT)
        results[name] = {"val": metrics_of(runs[name].metrics), "weights": weights}
    results["distilled"]["weights"] = str(save_bare_student(plan))
    if plan.data.test:
        for name, result in results.items():
            say(f"{name}: evaluating on the {len(plan.data.test)} test images")
            result["test"] = evaluate_detector(plan, name, "test", bare[name], result["weights"])
    say("drawing the report")
    summary = summarize(plan, results, runs)
    report = write_page(plan, summary, runs)
    for line in _table(summary):
        print(line)
    say(f"done in {clock(time.monotonic() - start)}: {results['distilled']['weights']}, {report}")
    return summary


def _table(summary: dict[str, Any]) -> Iterator[str]:
    for name, detector in summary["detectors"].items():
        values = [
            f"AP {shown(detector[part].get('AP'))} on {part}"
            for part in ("val", "test")
            if part in detector
        ]
        yield f"{name:10} {', '.join(values)}, {detector['parameters'] / 1e6:.2f} M parameters"


class _Both:
    """Writes to a stream and to a file."""

    def __init__(self, stream: TextIO, file: TextIO):
        self.stream, self.file = stream, file

    def write(self, text: str) -> int:
        """Write to both; names of files that are no Unicode with escapes."""
        text = printable(text)
        with saving(self.file.name):
            self.file.write(text)
            self.file.flush()
        return self.stream.write(text)

    def flush(self) -> None:
        """Of the stream; the file is flushed at every write."""
        self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def _logged(file: Path) -> Iterator[None]:
    """What is printed here is also appended to a file."""
    with (
        open(file, "a", encoding="utf-8") as log,
        contextlib.redirect_stdout(_Both(sys.stdout, log)),
    ):
        yield
