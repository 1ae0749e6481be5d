"""The report of a distillation: one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation.text import shown
from .curves import BANDS, Curves, curves_as_svg
from .drawing import ComparedImage
from .page import Figures, Note, Page, Pictures, Row, Section, Table

__all__ = ["METRICS", "drawn_from", "headline", "table_rows", "write_report"]

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")

_COMPARED = """Baseline and distilled are the same detector, trained on the same images for the same
number of iterations from the same seed. The distilled one also learned from the teacher."""
_ALONE = """The distilled detector learned from the images and from the teacher. It was not trained
alone, so this page does not say what distillation gained."""


def write_report(
    path: str,
    summary: Mapping[str, Any],
    curves: Curves,
    images: Sequence[ComparedImage],
    *,
    score_threshold: float,
    smoothing: str = "Each point is the median of 20 iterations, as Detectron2 logs it.",
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        summary: as in ``summary.json`` of :mod:`dense_kd.demo`; "baseline" may be absent, and
            "test" may have metrics of the detectors on other images, {name: metrics}.
        curves: metrics of the runs.
        images: rows of pictures.
        score_threshold: of the detections in the pictures, for the text.
        smoothing: what was done to the curves, for the text.
    """
    seeds = list(summary["seeds"])
    means = f" Students are means over the seeds {', '.join(seeds)}." if len(seeds) > 1 else ""
    bands = f" {BANDS}" if len(seeds) > 1 else ""
    tested = summary.get("test")
    settings = [Row(str(k), [str(v)]) for k, v in summary.get("settings", {}).items()]
    page = Page(
        title="Distillation report",
        headline=headline(summary),
        lead=[_COMPARED if "baseline" in summary else _ALONE],
        sections=[
            Section(
                "Results",
                [
                    _table(summary),
                    Note(
                        f"COCO AP (0 to 100) on the validation images.{means} n/a: not defined, as "
                        "where the dataset has no objects of that size. Minutes are wall-clock "
                        "time of training and its evaluation."
                    ),
                    *([_test_table(tested)] if tested else []),
                ],
            ),
            Section("Training", [Note(smoothing + bands), Figures(curves_as_svg(curves))]),
            Section("Validation images", [Note(drawn_from(score_threshold)), Pictures(images)]),
            Section("Settings", [Table("Settings", (), settings, "settings")]),
        ],
    )
    page.save(path)


def drawn_from(score_threshold: float) -> str:
    """What the pictures show, for those who look at them.

    Args:
        score_threshold: below which detections are not drawn.
    """
    return (
        f"Detections that score {score_threshold:g} or more. ✗ marks one that is wrong: no object "
        "of its class, not yet taken by a better detection, overlaps it with an IoU of 0.5. The "
        "images are spread evenly over those with several objects, not selected by result."
    )


def headline(summary: Mapping[str, Any]) -> str:
    """What happened, in a sentence."""
    distilled, teacher = summary["distilled"]["AP"], summary["teacher"]["AP"]
    of_teacher = f"; its teacher has {teacher:.1f}." if teacher is not None else "."
    if "baseline" not in summary:
        found = "found nothing" if distilled is None else f"has {distilled:.1f} AP"
        return f"The distilled student {found}{of_teacher}"
    baseline = summary["baseline"]["AP"]
    if baseline is None or distilled is None:
        return "A student found nothing, so there is no gain to report."
    # Compared as shown, or "from 28.1 to 28.1" would be called a gain.
    before, after = f"{baseline:.1f}", f"{distilled:.1f}"
    if before == after:
        sentence = f"Distillation left the student at {after} AP"
    else:
        way = "took the student from" if distilled > baseline else "lowered the student from"
        sentence = f"Distillation {way} {before} to {after} AP"
    if len(summary["seeds"]) > 1:
        sentence += f" (mean of {len(summary['seeds'])} seeds)"
    return sentence + of_teacher


def table_rows(summary: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The table as (name, cells), first the header; seeds have rows if there are several."""
    header = [*METRICS, "parameters", "iterations", "minutes"]
    rows = [("", header), ("teacher", _cells(summary["teacher"]))]
    students = [name for name in ("baseline", "distilled") if name in summary]
    for name in students:
        rows.append((name, _cells(summary[name])))
        if len(summary["seeds"]) > 1:
            for seed, results in summary["seeds"].items():
                rows.append((f"{name}, seed {seed}", _cells(results[name])))
    if len(students) < 2:
        return rows
    gains = [_difference(summary["distilled"][m], summary["baseline"][m]) for m in METRICS]
    return [*rows, ("gain", [*gains, "", "", ""])]


def _test_table(tested: Mapping[str, Any]) -> Table:
    rows = [Row(name, _metrics(metrics), name) for name, metrics in tested.items()]
    return Table("Metrics on the test images", ("on the test images", *METRICS), rows)


def _metrics(result: Mapping[str, Any]) -> list[str]:
    return [shown(result[m]) for m in METRICS]


def _cells(result: Mapping[str, Any]) -> list[str]:
    return [
        *_metrics(result),
        f"{result['parameters'] / 1e6:.2f} M",
        str(result["iterations"]),
        f"{result['seconds'] / 60:.1f}",
    ]


def _difference(after: float | None, before: float | None) -> str:
    return "n/a" if after is None or before is None else f"{after - before:+.1f}"


def _table(summary: Mapping[str, Any]) -> Table:
    (_, header), *rows = table_rows(summary)
    return Table(
        "Metrics",
        ("detector", *header),
        [Row(name, cells, "seed" if ", seed" in name else name) for name, cells in rows],
    )
