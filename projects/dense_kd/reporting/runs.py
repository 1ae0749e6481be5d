"""Trained runs as their folders tell of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import FINAL_CHECKPOINT
from ..data.of_distillation import RECORD
from ..engine.checks.files import last_checkpoint
from ..engine.processes import read_metrics
from ..engine.state.stored_config import at
from ..evaluation.coco import DETECTIONS
from ..json_files import read_json
from ..options import split_title
from ..pipeline.results import metrics_of
from .errors import ReportError
from .saved_configs import read_config

__all__ = ["TrainedRun", "read_runs"]

CONFIG, METRICS_FILE = "config.yaml", "metrics.json"
STAGES = ("teacher", "student", "distilled")


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """One training, finished or not.

    Attributes:
        folder: its ``train.output_dir``.
        name: for people, of the folder or as it was given.
        named: whether it was given.
        config: see :func:`.saved_configs.read_config`.
        records: the lines of its metrics.
        distillation: the folder of ``dense-kd distill`` that it is a part of, if any.
    """

    folder: Path
    name: str
    named: bool
    config: dict[str, Any]
    records: list[dict[str, Any]]
    distillation: Path | None = None

    @property
    def planned(self) -> int:
        """Iterations that the config asks for; 0 if it does not say."""
        value = at(self.config, "train.max_iter", 0)
        return value if isinstance(value, int) else 0

    @property
    def iterations(self) -> int:
        """Those that were logged as done."""
        done = [r["iteration"] + 1 for r in self.records if "total_loss" in r]
        return max(done, default=0)

    @property
    def finished(self) -> bool:
        """Whether all iterations are done and the last weights written."""
        return self.iterations >= self.planned and (self.folder / FINAL_CHECKPOINT).is_file()

    @property
    def seed(self) -> str:
        """As the config has it; "random" if that leaves it open."""
        seed = at(self.config, "train.seed")
        return "random" if seed is None or (isinstance(seed, int) and seed < 0) else str(seed)

    @property
    def metrics(self) -> dict[str, float | None]:
        """Of its last evaluation, {"AP": ...}; None is what COCO does not define, {} is none."""
        for record in reversed(self.records):
            if "bbox/AP" in record:
                return metrics_of({k: v for k, v in record.items() if k.startswith("bbox/")})
        return {}

    @property
    def minutes(self) -> float | None:
        """Of its iterations, without evaluations, from the median times that were logged."""
        before, seconds = -1, 0.0
        for record in self.records:
            if isinstance(record.get("time"), float):
                seconds += record["time"] * (record["iteration"] - before)
                before = record["iteration"]
        return seconds / 60 if seconds else None

    @property
    def weights(self) -> Path | None:
        """The last that it has written and that are still there."""
        return last_weights(self.folder)

    @property
    def detections(self) -> Path | None:
        """What its last evaluation wrote in COCO's format for results."""
        places = (self.folder / DETECTIONS, self.folder / "inference" / DETECTIONS)
        there = [path for path in places if path.is_file()]
        return max(there, key=lambda path: path.stat().st_mtime, default=None)

    @property
    def state(self) -> str:
        """How far an unfinished run came; empty for a finished one."""
        if self.finished:
            return ""
        of = f" of {self.planned}" if self.planned else ""
        return f"unfinished, {self.iterations}{of} iterations"


def last_weights(folder: Path) -> Path | None:
    """The last that the run of a folder has written and that are still there."""
    if (folder / FINAL_CHECKPOINT).is_file():
        return folder / FINAL_CHECKPOINT
    last = last_checkpoint(folder)
    return Path(last) if last is not None and Path(last).is_file() else None


def read_runs(arguments: Sequence[str]) -> list[TrainedRun]:
    """All runs of folders, in their order; a distillation of ``dense-kd distill`` is several.

    Args:
        arguments: FOLDER, or TITLE=FOLDER.

    Raises:
        ReportError: a folder is no run, has no metrics, or was given before.
    """
    runs = [run for each in arguments for run in _runs(each, alone=len(arguments) == 1)]
    folders = [run.folder.resolve() for run in runs]
    for index, folder in enumerate(folders):
        if folder in folders[:index]:
            raise ReportError(f"{runs[index].folder} is given twice; give each run once")
    return runs


def _runs(argument: str, alone: bool) -> Iterator[TrainedRun]:
    title, place = split_title(argument)
    folder = Path(place)
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        raise ReportError(f"{folder} is {what}; expected the folder of a run")
    if not (folder / RECORD).is_file():
        yield _read(folder, title or folder.resolve().name, bool(title))
        return
    if not read_json(folder / RECORD):
        raise ReportError(f"{folder / RECORD} cannot be read; `dense-kd distill` writes it anew")
    stages = [name for name in STAGES if read_metrics(folder / name)]
    if not stages:
        raise ReportError(
            f"{folder} is a distillation in which nothing was trained yet; go on with it "
            "(`dense-kd distill`), then report"
        )
    before = "" if alone and not title else f"{title or folder.resolve().name}/"
    for stage in stages:
        yield _read(folder / stage, before + stage, bool(title), folder)


def _read(folder: Path, name: str, named: bool, distillation: Path | None = None) -> TrainedRun:
    if not (folder / CONFIG).is_file():
        raise ReportError(
            f"{folder} is no run: it has no {CONFIG}; expected a folder that `dense-kd train` or "
            "`dense-kd distill` has written (train.output_dir of the run)"
        )
    records = [r for r in read_metrics(folder) if "iteration" in r]
    if not records:
        raise ReportError(
            f"{folder} has no metrics in {METRICS_FILE}: the run has not logged anything yet; "
            "train it for train.log_period iterations at least, or leave it out"
        )
    return TrainedRun(folder, name, named, read_config(folder / CONFIG), records, distillation)


def mean_of(values: Sequence[float | None]) -> float | None:
    """Their mean; None if there are none, or one is undefined."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def spread_of(values: Sequence[float | None]) -> float | None:
    """Their standard deviation (of a sample, n - 1); None below two, or if one is undefined."""
    mean = mean_of(values)
    if mean is None or len(values) < 2:
        return None
    squares = sum((value - mean) ** 2 for value in values if value is not None)
    return math.sqrt(squares / (len(values) - 1))
