"""Whether the runs of a report differ, which errors they make and how far to trust their scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import MissingExtraError
from ..evaluation.analysis import Analysis, Difference, compare
from ..evaluation.coco import read_annotations, require_hotcoco
from ..evaluation.errors import EvaluationError
from ..visualize.errors import draw_error_types
from ..visualize.inline_figures import TEXT, as_svg
from ..visualize.page import Figures, Note, Part, Row, Table
from ..visualize.report import METRICS
from .groups import RunGroup
from .runs import TrainedRun, mean_of

__all__ = ["evidence", "other_data"]

_Key = tuple[str, str]
"""(title of a group, folder of a run)."""

_NEAR = 0.05  # points of AP: what is shown as equal


def other_data(groups: Sequence[RunGroup]) -> list[RunGroup]:
    """Those that were evaluated on other data than the first, and so cannot be compared with it."""
    return [group for group in groups if group.data.key != groups[0].data.key]


def evidence(groups: Sequence[RunGroup], samples: int = 1000) -> list[Part]:
    """Tables of differences, error types and calibration, or why there are none.

    Args:
        groups: of the report; all are compared with the first.
        samples: of the bootstrap.
    """
    parts: list[Part] = [_refused(groups[0], each) for each in other_data(groups)]
    alike = [group for group in groups if group not in other_data(groups)]
    data = alike[0].data
    try:
        require_hotcoco()
    except MissingExtraError as error:
        return [*parts, Note(f"Intervals, error types and calibration are left out: {error}.",
                             "warning")]  # fmt: skip
    if data.annotations is None:
        return [*parts, Note(f"Nothing can be said of errors: {data.missing}.", "warning")]
    analyses: dict[_Key, Analysis] = {}
    try:
        truth = read_annotations(str(data.annotations))
    except EvaluationError as error:
        return [*parts, Note(f"Nothing can be said of errors: {error}.", "warning")]
    for group in alike:
        for run in group.runs:
            try:
                analyses[_key(group, run)] = _analysis(truth, run)
            except EvaluationError as error:
                parts.append(Note(f"{group.title_of(run)}: {error}.", "warning"))
    stale = [_stale(g, r, analyses[_key(g, r)]) for g in alike for r in g.runs
             if _key(g, r) in analyses]  # fmt: skip
    parts += [note for note in stale if note]
    if len(groups) > 1:
        parts += _differences(alike, analyses, samples)
    return [*parts, *_errors(alike, analyses)]


def _refused(first: RunGroup, other: RunGroup) -> Note:
    return Note(
        f"{other.title} was evaluated on {other.data}, {first.title} on {first.data}: what "
        "differs there may be the images and not the detectors, so the two are not compared.",
        "warning",
    )


def _key(group: RunGroup, run: TrainedRun) -> _Key:
    return group.title, str(run.folder)


def _analysis(truth: Any, run: TrainedRun) -> Analysis:
    file = run.detections
    if file is None:
        raise EvaluationError(
            f"its detections are not in {run.folder}; `dense-kd eval CONFIG WEIGHTS "
            f"dataloader.evaluator.output_dir={run.folder}` writes them"
        )
    return Analysis(truth, str(file))


def _stale(group: RunGroup, run: TrainedRun, analysis: Analysis) -> Note | None:
    """Detections are written anew by each evaluation, so they may be of another one."""
    logged, there = run.metrics.get("AP"), analysis.metrics()["AP"]
    if logged is None or math.isnan(there) or abs(logged - there) < _NEAR:
        return None
    return Note(
        f"{group.title_of(run)}: {run.detections} is of another evaluation than the last that the "
        f"run logged, {there:.1f} AP and not {logged:.1f}; what follows is of that file.",
        "warning",
    )


def _differences(
    groups: Sequence[RunGroup], analyses: Mapping[_Key, Analysis], samples: int
) -> list[Part]:
    first = groups[0]
    of_seeds = {run.seed: run for run in reversed(first.runs) if _key(first, run) in analyses}
    rows = []
    for group in groups[1:]:
        for run in group.runs:
            if not of_seeds or _key(group, run) not in analyses:
                continue
            base = of_seeds.get(run.seed) or [*of_seeds.values()][-1]
            found = compare(
                analyses[_key(first, base)], analyses[_key(group, run)], samples=samples
            )
            name = f"{group.title_of(run)} − {first.title_of(base)}"
            rows.append(Row(name, [_interval(found.get(metric)) for metric in METRICS]))
    if not rows:
        return []
    return [
        Table("Differences to the first run", ("difference", *METRICS), rows, "wide"),
        Note(
            f"Points more than {first.title}, and the 95 % interval of a paired bootstrap: "
            f"{samples:,} times, images are drawn with replacement, the same for both runs. * "
            "marks an interval without 0: a difference that other images of the kind would show, "
            "too. What another seed would change is not in it; runs of equal seeds are compared "
            "with each other where there are such."
        ),
    ]


def _interval(found: Difference | None) -> str:
    if found is None:
        return "n/a"
    mark = " *" if found.is_clear else ""
    return f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f}){mark}"


def _errors(groups: Sequence[RunGroup], analyses: Mapping[_Key, Analysis]) -> list[Part]:
    types: dict[str, dict[str, Any]] = {}
    rows = []
    for group in groups:
        runs = [run for run in group.counted if _key(group, run) in analyses]
        runs = runs or [run for run in group.runs if _key(group, run) in analyses]
        if not runs:
            continue
        each = [dataclasses.asdict(analyses[_key(group, run)].error_types()) for run in runs]
        calibrations = [analyses[_key(group, run)].calibration() for run in runs]
        types[group.title] = _mean_types(each)
        costs = {**types[group.title]["main"], **types[group.title]["special"]}
        ece = mean_of([100 * calibration.ece for calibration in calibrations])
        rows.append(Row(group.title, [*(f"{cost:.1f}" for cost in costs.values()), f"{ece:.1f}"]))
    if not rows:
        return []
    heads = [*next(iter(types.values()))["main"], *next(iter(types.values()))["special"]]

    def draw(axes: Any) -> None:
        draw_error_types(axes, types)
        axes.set_title("")
        for bar in axes.patches:
            bar.set_edgecolor(TEXT)  # dark bars on a dark page
            bar.set_linewidth(0.6)

    title = "What errors cost, in points of AP50"
    return [
        Table("Error types", ("errors", *heads, "ECE"), rows),
        Note(
            "Points of AP at an IoU of 0.5 that would be won, were all errors of a type mended "
            "(TIDE): wrong class, bad place, both, duplicates, background, misses; all false "
            "positives and all false negatives. ECE: expected calibration error, how far scores "
            "are from the part of detections that are right, in percent. Of several seeds, means."
        ),
        Figures([(title, as_svg(draw, "errors", title))]),
    ]


def _mean_types(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "iou": each[0]["iou"],
        **{
            part: {name: mean_of([one[part][name] for one in each]) for name in each[0][part]}
            for part in ("main", "special")
        },
    }
