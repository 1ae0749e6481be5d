"""All that :mod:`.analysis` and :mod:`.error_curves` find of several runs on one dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from ..json_files import without_nan
from .analysis import Analysis, compare, read_results
from .coco import read_annotations
from .error_curves import error_curves
from .text import shown

__all__ = ["as_text", "side_by_side"]


def side_by_side(
    annotations: str, runs: Mapping[str, str], *, iou: float = 0.5, samples: int = 1000
) -> dict[str, Any]:
    """Analyse runs, and compare each with the first.

    Args:
        annotations: COCO's file.
        runs: {title: file in COCO's format for results}.
        iou: of the error types.
        samples: of the intervals of differences, see :func:`.analysis.compare`.

    Returns:
        In JSON types, None for what is undefined: {"annotations": file, "runs": {title: {"results":
        file, "metrics": {}, "per_class": {}, "error_types": {}, "calibration": {}, "error_curves":
        {"areas": {}, "mean": {}}}}, "differences": {title: {metric: {"value", "low", "high"}}}}.

    Raises:
        MissingExtraError: hotcoco is not installed.
        EvaluationError: a file cannot be read, or is of another dataset.
    """
    truth = read_annotations(annotations)
    analyses, found = {}, {}
    for title, file in runs.items():
        results = read_results(file)
        analysis = analyses[title] = Analysis(truth, results, file)
        curves = error_curves(truth, results)
        found[title] = {
            "results": file,
            "metrics": analysis.metrics(),
            "per_class": analysis.per_class(),
            "error_types": dataclasses.asdict(analysis.error_types(iou)),
            "calibration": dataclasses.asdict(analysis.calibration(iou)),
            "error_curves": {
                "areas": curves.areas(),
                "mean": {kind: curve.tolist() for kind, curve in curves.mean().items()},
            },
        }
    first, *others = analyses
    differences = {
        title: {
            metric: dataclasses.asdict(difference)
            for metric, difference in compare(
                analyses[first], analyses[title], samples=samples
            ).items()
        }
        for title in others
    }
    content = {"annotations": annotations, "runs": found, "differences": differences}
    return without_nan(content)


def as_text(content: Mapping[str, Any]) -> str:
    """Tables of metrics, error types, forgiven errors and differences.

    Args:
        content: of :func:`side_by_side`.
    """
    runs = content["runs"]
    first = next(iter(runs.values()))

    def of_runs(heading: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
        names = [*next(iter(rows.values()))]
        body = [[title, *(shown(row[name], "-") for name in names)] for title, row in rows.items()]
        align = ["left", *["right"] * len(names)]
        return tabulate([*body], [heading, *names], disable_numparse=True, colalign=align)

    found = [
        of_runs("metrics", {t: {**r["metrics"], "ECE": 100 * r["calibration"]["ece"]}
                            for t, r in runs.items()}),
        of_runs(f"errors at {first['error_types']['iou']:g}",
                {t: {**r["error_types"]["main"], **r["error_types"]["special"]}
                 for t, r in runs.items()}),
        of_runs("forgiven up to", {t: r["error_curves"]["areas"] for t, r in runs.items()}),
    ]  # fmt: skip
    for title, differences in content["differences"].items():
        rows = {
            name: f"{d['value']:+.1f} ({d['low']:+.1f} to {d['high']:+.1f})"
            for name, d in differences.items()
        }
        heading = f"{title} - {next(iter(runs))}"
        found.append(tabulate(rows.items(), [heading, "difference and interval"]))
    return "\n\n".join(found)
