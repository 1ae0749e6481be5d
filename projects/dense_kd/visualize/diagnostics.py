"""What was measured of teachers and labels, as one picture."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .inline_figures import plain
from .panels import PALETTE, save_panels

__all__ = [
    "EVALUATIONS",
    "draw_conflicts",
    "draw_evaluations",
    "draw_masking",
    "save_diagnostics",
]

_MARKERS = "osD^vPX"

EVALUATIONS = {
    "teacher": ("Distance of the student to its teacher", "mean L1 distance"),
    "truth": ("Distance of the student to the labels", "mean L1 distance"),
    "ap": ("AP of the student", "AP"),
}
"""{what was measured: title and unit}, (a) to (c) of CrossKD's Figure 6."""


def save_diagnostics(file: str, content: Mapping[str, Any]) -> None:
    """Draw a panel for each part of what was measured, three of distances.

    Args:
        file: to write, with one of :data:`.panels.SUFFIXES`.
        content: of :func:`dense_kd.engine.diagnosing.diagnose`.

    Raises:
        EvaluationError: the file is of another kind.
    """
    drawings: list[Callable[[Axes], None]] = []
    if "conflicts" in content:
        drawings.append(functools.partial(draw_conflicts, teachers=content["conflicts"]))
    if "masking" in content:
        drawings.append(functools.partial(draw_masking, teachers=content["masking"]))
    if "distances" in content:
        drawings += [
            functools.partial(draw_evaluations, runs=content["distances"], kind=kind)
            for kind in EVALUATIONS
        ]
    save_panels(file, drawings)


def draw_conflicts(axes: Axes, teachers: Mapping[str, Mapping[str, Any]]) -> None:
    """Conflicts for each positive over the difference that makes one (CrossKD, Figure 3).

    Args:
        axes: to draw into.
        teachers: {title: {"thresholds", "ratios"}}.
    """
    curves = {t: (each["thresholds"], each["ratios"]) for t, each in teachers.items()}
    _draw_curves(axes, curves)
    axes.set(
        title="Conflicts of teacher and label",
        xlabel="difference t of score and label",
        ylabel="locations that differ by more, per positive",
        xlim=(0, 1),
    )
    axes.set_ylim(bottom=0)


def draw_masking(axes: Axes, teachers: Mapping[str, Mapping[str, Any]]) -> None:
    """AP over the part of the best predictions that is masked (PGD, Figure 3).

    Args:
        axes: to draw into.
        teachers: {title: {"masked", "ap"}, in percent}.
    """
    _draw_curves(axes, {t: (each["masked"], each["ap"]) for t, each in teachers.items()})
    axes.set_xscale("symlog", linthresh=1)  # a percent is as far from none as ten from it
    ticks = sorted({x for each in teachers.values() for x in each["masked"]})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set(
        title="Teachers without their best predictions",
        xlabel="masked of the predictions in each object, %",
        ylabel="AP",
    )
    axes.set_ylim(bottom=0)


def draw_evaluations(axes: Axes, runs: Mapping[str, Mapping[str, Any]], kind: str) -> None:
    """What the evaluations of runs have measured over the iterations (CrossKD, Figure 6).

    Args:
        axes: to draw into.
        runs: {title: {"iteration", kind}}.
        kind: one of :data:`EVALUATIONS`.
    """
    title, unit = EVALUATIONS[kind]
    _draw_curves(axes, {name: (run["iteration"], run[kind]) for name, run in runs.items()})
    axes.set(title=title, xlabel="iteration", ylabel=unit)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.set_ylim(bottom=0)


def _draw_curves(axes: Axes, curves: Mapping[str, tuple[Any, Any]]) -> None:
    """Lines with markers, which are told apart where colours are not."""
    colours = colormaps[PALETTE](np.linspace(0.05, 0.8, len(curves)))
    for (title, (x, y)), colour, marker in zip(curves.items(), colours, itertools.cycle(_MARKERS)):
        heights = np.asarray(y, dtype=float)  # None, of what is not defined, is NaN: a gap
        axes.plot(x, heights, color=colour, marker=marker, markersize=4, label=plain(title))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
