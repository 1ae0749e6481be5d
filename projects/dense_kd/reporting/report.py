"""The page about trained runs, from their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..arguments import is_integer
from ..checkpoint import CheckpointError, read_content
from ..checkpoint.description import description_of
from ..checkpoint.places import check_file
from ..description import build_described
from ..diagnostics.making import check_figures
from ..engine.state.stored_config import at
from ..evaluation.text import shown
from ..visualize.curves import BANDS, curves_as_svg, diagnostics_as_svg
from ..visualize.page import Figures, Folded, Note, Page, Part, Row, Section, Table, title_of
from ..visualize.report import METRICS
from .errors import ReportError
from .evidence import evidence, other_data
from .groups import RunGroup, group_runs
from .maps import maps
from .pictures import pictures
from .runs import TrainedRun, mean_of, read_runs
from .settings import ABSENT, compare_settings
from .training_maps import training_maps

__all__ = ["headline", "report_runs"]

_TITLE = "Report of runs"


def report_runs(
    runs: Sequence[str],
    output: str,
    *,
    titles: Mapping[str, str] | None = None,
    images: int = 4,
    figures: Sequence[str] = (),
    samples: int = 1000,
    annotations: str | None = None,
    image_root: str | None = None,
) -> str:
    """Write a page about runs; all are compared with the first.

    Args:
        runs: folders of ``dense-kd train`` or ``dense-kd distill``, each as FOLDER or TITLE=FOLDER.
            Those that differ in the seed only are one row.
        output: the HTML file to write.
        titles: {title that a row would have: what it is called instead}.
        images: how many to show with what the runs detect; 0 is none.
        figures: maps of the distillations on the first of these images, some of
            :data:`dense_kd.diagnostics.making.FIGURES`, by the last weights. The configs of their
            runs are built and their teachers loaded for it. What runs with ``train.maps`` have
            drawn while they trained is shown without being asked for, and without building any.
        samples: of the bootstrap of differences.
        annotations: COCO's file of the images for evaluation, where the name of the dataset in the
            config does not say it.
        image_root: the folder of these images, likewise.

    Returns:
        the headline.

    Raises:
        ReportError: a folder is no run or has no metrics, an argument is wrong, or ``output`` is
            another page.
        SaveError: ``output`` cannot be written.
        DiagnosticsError: there is no such figure.
    """
    if not is_integer(images) or images < 0:
        raise ReportError(f"images={images!r}: expected a whole number, 0 for no pictures")
    if not is_integer(samples) or samples < 1:
        raise ReportError(f"samples={samples!r}: expected a whole number of at least 1")
    if figures:
        check_figures(figures)
    if not runs:
        raise ReportError("there is no run to report on; expected one folder or more")
    check_file(output)
    place = Path(output)
    if place.exists() and place.stat().st_size and title_of(output) != _TITLE:
        raise ReportError(
            f"{output} is there already, and is no report of runs; give another --output, or move "
            "it away"
        )
    groups = group_runs(read_runs(runs), titles, annotations, image_root)
    curves = {group.title: [run.records for run in group.runs] for group in groups}
    several = any(len(group.runs) > 1 for group in groups)
    bands = f" {BANDS}" if several else ""
    sections = [
        Section("Results", _results(groups)),
        Section("Differences and errors", evidence(groups, samples)),
        Section(
            "Training",
            [
                Note("Each point is the median of 20 iterations, as Detectron2 logs it." + bands),
                Figures(curves_as_svg(curves)),
            ],
        ),
    ]
    diagnostics = diagnostics_as_svg(curves)
    if diagnostics:
        note = Note("Each point is one measurement, not smoothed." + bands)
        sections.append(Section("Diagnostics of the distillation", [note, Figures(diagnostics)]))
    if images:
        sections.append(Section("Detections", pictures(groups, images)))
    if figures:
        sections.append(Section("Teacher and student, place by place", maps(groups, figures, 1)))
    drawn = training_maps(groups)
    if drawn:
        sections.append(Section("Maps drawn while training", drawn))
    sections.append(Section("Settings", _settings(groups)))
    page = Page(_TITLE, headline(groups), sections, lead=_lead(groups))
    place.parent.mkdir(parents=True, exist_ok=True)
    page.save(output)
    return page.headline


def headline(groups: Sequence[RunGroup]) -> str:
    """The best of the rows, and beside it the first, or else the second best, in a sentence."""
    first = groups[0]
    alike = [group for group in groups if group not in other_data(groups)]
    known = [group for group in alike if group.mean("AP") is not None]
    if not known:
        who = "No run has" if len(groups) > 1 else f"{first.title} does not have"
        return f"{who} an AP: nothing was evaluated yet, or nothing detected."
    best, *others = sorted(known, key=lambda group: -(group.mean("AP") or 0.0))
    beside = first if best is not first and first in others else next(iter(others), None)
    sentence = f"{best.title} has {best.mean('AP'):.1f} AP{_seeds(best)}"
    if beside is not None:
        sentence += f", {beside.title} {beside.mean('AP'):.1f}{_seeds(beside)}"
    return f"{sentence}."


def _seeds(group: RunGroup) -> str:
    number = len(group.counted)
    return f" (mean of {number} seeds)" if number > 1 else ""


def _lead(groups: Sequence[RunGroup]) -> list[str]:
    names = list(dict.fromkeys(str(group.data) for group in groups))
    lead = [f"Evaluated on {'; '.join(names)}."]
    rounded = [g.title for g in groups if at(g.config, "train.quantization_aware") is True]
    if rounded:
        lead.append(
            "Evaluated as the training computes them, as if in 8-bit integers, and not as the "
            f"weights in floats (train.quantization_aware): {'; '.join(rounded)}."
        )
    unfinished = [
        f"{group.title_of(run)} ({run.state})"
        for group in groups
        for run in group.runs
        if run.state
    ]
    if unfinished:
        lead.append(f"Not finished, and shown with what is there: {'; '.join(unfinished)}.")
    return lead


def _results(groups: Sequence[RunGroup]) -> list[Part]:
    differ = bool(other_data(groups))
    head = ["run", *METRICS, "parameters", "iterations", "minutes"]
    head += ["evaluated on"] if differ else []
    rows = []
    for group in groups:
        rows.append(_row(group, differ))
        if len(group.runs) > 1:
            rows += [_row_of_seed(group, run, differ) for run in group.runs]
    spreads = any(len(group.counted) > 1 for group in groups)
    return [
        Table("Metrics", head, rows),
        Note(
            "COCO AP (0 to 100) of the last evaluation."
            + (" Rows of several seeds: mean ± standard deviation (n − 1)." if spreads else "")
            + " n/a: not there, or not defined, as where the dataset has no objects of that size. "
            "Minutes are of the iterations alone, by the times that were logged."
        ),
    ]


def _row(group: RunGroup, differ: bool) -> Row:
    states = [run.state for run in group.runs]
    state = f" ({states[0]})" if len(states) == 1 and states[0] else ""
    iterations = sorted({run.iterations for run in group.counted})
    cells = [
        *(_with_spread(group.mean(metric), group.spread(metric)) for metric in METRICS),
        _parameters(group),
        " to ".join(map(str, [iterations[0], *iterations[1:][-1:]])),
        shown(mean_of([run.minutes for run in group.counted])),
    ]
    return Row(group.title + state, [*cells, *([group.data.name] if differ else [])])


def _row_of_seed(group: RunGroup, run: TrainedRun, differ: bool) -> Row:
    counted = run.state and any(each.finished for each in group.runs)
    state = f" ({run.state}{', not in the mean' if counted else ''})" if run.state else ""
    cells = [
        *(shown(run.metrics.get(metric)) for metric in METRICS),
        "",
        str(run.iterations),
        shown(run.minutes),
        *([""] if differ else []),
    ]
    return Row(f"{group.name_of(run)}{state}", cells, "seed")


def _with_spread(mean: float | None, spread: float | None) -> str:
    return shown(mean) + ("" if spread is None else f" ± {spread:.1f}")


def _parameters(group: RunGroup) -> str:
    """Of the detector that the weights describe; no memory is taken for them."""
    weights = group.counted[0].weights
    if weights is None:
        return "n/a"
    try:
        description = description_of(read_content(str(weights)), str(weights))
        if description is None or description.model is None:
            return "n/a"
        with torch.device("meta"):
            model = build_described(description.model, f"the model in {weights}")
    except CheckpointError:
        return "n/a"
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f} M"


def _settings(groups: Sequence[RunGroup]) -> list[Part]:
    different, common = compare_settings([group.config for group in groups])
    parts: list[Part] = []
    titles = [group.title for group in groups]
    if len(groups) > 1:
        rows = [Row(name, texts) for name, texts in different.items()]
        parts.append(Note(f"What the configs do not have in common. {ABSENT}: it is not there."))
        parts.append(Table("Settings that differ", ("setting", *titles), rows, "settings"))
    rows = [Row(name, [text]) for name, text in common.items()]
    what = "Settings in common" if len(groups) > 1 else "Settings"
    folded = Folded(f"{what} ({len(rows)})", [Table(what, (), rows, "settings")])
    folders = [Row(g.title, ["; ".join(str(run.folder) for run in g.runs)]) for g in groups]
    return [*parts, folded, Folded("Folders", [Table("Folders", (), folders, "settings")])]
