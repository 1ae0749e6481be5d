"""Error types and curves of runs, as one picture."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from ..evaluation.error_curves import KINDS, RECALL
from .inline_figures import plain
from .panels import PALETTE, save_panels

__all__ = ["draw_error_curves", "draw_error_types", "save_errors"]


def save_errors(file: str, content: Mapping[str, Any]) -> None:
    """Draw the error types of all runs side by side, and the curves of each.

    Args:
        file: to write, with one of :data:`.panels.SUFFIXES`.
        content: of :func:`dense_kd.evaluation.side_by_side.side_by_side`.

    Raises:
        EvaluationError: the file is of another kind.
    """
    runs = content["runs"]
    types = {title: run["error_types"] for title, run in runs.items()}
    curves = [
        functools.partial(draw_error_curves, title=title, curves=run["error_curves"])
        for title, run in runs.items()
    ]
    save_panels(file, [functools.partial(draw_error_types, types=types), *curves])


def draw_error_types(axes: Axes, types: Mapping[str, Mapping[str, Any]]) -> None:
    """Bars of what each type costs, a group for each type.

    Args:
        axes: to draw into.
        types: {run: :class:`dense_kd.evaluation.analysis.ErrorTypes` as a dict}.
    """
    colours = colormaps[PALETTE](np.linspace(0.1, 0.9, len(types)))
    for index, ((title, each), colour) in enumerate(zip(types.items(), colours)):
        costs = {**each["main"], **each["special"]}
        places = np.arange(len(costs)) + (index - (len(types) - 1) / 2) * 0.8 / len(types)
        axes.bar(places, list(costs.values()), 0.8 / len(types), color=colour, label=plain(title))
        axes.set_xticks(np.arange(len(costs)), list(costs), rotation=30)
    iou = next(iter(types.values()))["iou"]
    axes.set(title="What errors cost", ylabel=f"points of AP at an IoU of {iou:g}")
    axes.legend(frameon=False)


def draw_error_curves(axes: Axes, title: str, curves: Mapping[str, Any]) -> None:
    """Precision over recall, filled between what is forgiven one after the other.

    Args:
        axes: to draw into.
        title: of the run.
        curves: {"mean": {kind: (101,)}, "areas": {kind: percent}}.
    """
    below = np.zeros_like(RECALL)
    colours = colormaps[PALETTE](np.linspace(0.0, 1.0, len(KINDS)))
    for kind, colour in zip(KINDS, colours):
        curve = np.asarray(curves["mean"][kind])
        label = f"{kind} {curves['areas'][kind]:.1f}"
        axes.fill_between(RECALL, below, curve, color=colour, label=label, linewidth=0)
        axes.plot(RECALL, curve, color="black", linewidth=0.6)
        below = curve
    axes.set(title=plain(title), xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="lower left", fontsize="small")
