"""Runs that differ in nothing but the seed, as one."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.checks.tree import PARTS
from ..engine.state.stored_config import at
from .datasets import EvaluationData, evaluation_data
from .errors import ReportError
from .runs import TrainedRun, mean_of, spread_of

__all__ = ["RunGroup", "group_runs"]

_OF_A_SEED = (("train", "seed"), ("dataloader", "train", "seed"))
_OF_A_PLACE = (
    ("train", "output_dir"),
    ("train", "overwrite"),
    ("dataloader", "evaluator", "output_dir"),
)


@dataclass(frozen=True)
class RunGroup:
    """A row of the report.

    Attributes:
        title: unlike that of all others.
        runs: one for each seed.
        data: that they were evaluated on.
        config: what they have in common; of a distillation, the student is ``model`` itself, as in
            a run without a teacher.
    """

    title: str
    runs: Sequence[TrainedRun]
    data: EvaluationData
    config: Mapping[str, Any]

    @property
    def counted(self) -> Sequence[TrainedRun]:
        """The finished runs; all if none is."""
        return [run for run in self.runs if run.finished] or self.runs

    def mean(self, metric: str) -> float | None:
        """Of the counted runs."""
        return mean_of([run.metrics.get(metric) for run in self.counted])

    def spread(self, metric: str) -> float | None:
        """The standard deviation over the counted runs."""
        return spread_of([run.metrics.get(metric) for run in self.counted])

    def name_of(self, run: TrainedRun) -> str:
        """Of one of several runs."""
        same = sum(each.seed == run.seed for each in self.runs) > 1
        return f"seed {run.seed}" + (f" ({run.folder})" if same else "")

    def title_of(self, run: TrainedRun) -> str:
        """Of one of its runs, also outside of the row."""
        return f"{self.title}, {self.name_of(run)}" if len(self.runs) > 1 else self.title


def group_runs(
    runs: Sequence[TrainedRun],
    titles: Mapping[str, str] | None = None,
    annotations: str | None = None,
    images: str | None = None,
) -> list[RunGroup]:
    """The rows of a report, in the order of their first runs.

    Args:
        runs: one or more.
        titles: {title that a row would have: what it is called instead}.
        annotations, images: see :func:`.datasets.evaluation_data`.

    Raises:
        ReportError: ``titles`` has one that no row would have.
    """
    members: dict[str, list[TrainedRun]] = {}
    datasets: dict[str, EvaluationData] = {}
    configs: dict[str, dict[str, Any]] = {}
    for run in runs:
        data = evaluation_data(run.config, run.distillation, annotations, images)
        config = _comparable(run)
        given = run.name if run.named else ""
        key = json.dumps([config, data.key, given], sort_keys=True, default=str)
        members.setdefault(key, []).append(run)
        datasets[key], configs[key] = data, config
    names = [_title(group) for group in members.values()]
    unknown = sorted(set(titles or {}) - set(names))
    if unknown:
        raise ReportError(
            f"--title {unknown[0]}=...: there is no row {unknown[0]!r}; the rows are "
            f"{', '.join(map(repr, dict.fromkeys(names)))}"
        )
    names = _distinct([(titles or {}).get(name, name) for name in names])
    return [
        RunGroup(name, group, datasets[key], configs[key])
        for name, (key, group) in zip(names, members.items())
    ]


def _title(runs: Sequence[TrainedRun]) -> str:
    """What the names of runs have in common."""
    names = [run.name for run in runs]
    if len(set(names)) == 1:
        return names[0]
    befores, _, stages = zip(*(name.rpartition("/") for name in names))
    if len(set(stages)) == 1:  # of several distillations
        return f"{_beginning(befores) or befores[0]}/{stages[0]}"
    above = {run.folder.resolve().parent.name for run in runs}
    return _beginning(names) or (above.pop() if len(above) == 1 else names[0])


def _beginning(names: Sequence[str]) -> str:
    common = os.path.commonprefix(names)
    if any(name[len(common) :][:1].isdigit() for name in names):
        common = common.rstrip("0123456789")  # of 1 and 12
    return common.rstrip("_-. =").removesuffix("seed").rstrip("_-. =")


def _distinct(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        number = 2
        title = name
        while title in found:
            title, number = f"{name} ({number})", number + 1
        found.append(title)
    return found


def _comparable(run: TrainedRun) -> dict[str, Any]:
    """What a run reads of its config, without seed and places; a student is ``model`` itself."""
    text = json.dumps(run.config, default=str)
    config = copy.deepcopy(
        {
            name: part
            for name, part in run.config.items()
            if name in PARTS or re.search(rf"\$\{{{re.escape(name)}\b", text)
        }
    )
    for place in (*_OF_A_SEED, *_OF_A_PLACE):
        above = at(config, ".".join(place[:-1]))
        if isinstance(above, dict):
            above.pop(place[-1], None)
    model = config.get("model")
    if isinstance(model, dict) and isinstance(model.get("student"), dict):
        student = model.pop("student")
        config["distillation"] = model
        config["model"] = student
    if run.distillation is not None:
        # Another seed of the same distillation is in another folder, as is its teacher.
        config = _moved(config, str(run.distillation.resolve()))
    return config


def _moved(value: Any, folder: str) -> Any:
    if isinstance(value, dict):
        return {key: _moved(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, folder) for item in value]
    return value.replace(folder, "...") if isinstance(value, str) else value
