"""Error types and curves of runs, as one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..evaluation.coco import EvaluationError
from ..evaluation.error_curves import KINDS, RECALL

__all__ = ["SUFFIXES", "check_suffix", "save_errors"]

SUFFIXES = (".png", ".svg", ".pdf")
_PALETTE = "cividis"  # its order survives print in grey, and every kind of colour blindness


def save_errors(file: str, content: Mapping[str, Any]) -> None:
    """Draw the error types of all runs side by side, and the curves of each.

    Args:
        file: to write, with one of :data:`SUFFIXES`.
        content: of :func:`dense_kd.evaluation.side_by_side.side_by_side`.

    Raises:
        EvaluationError: the file is of another kind.
    """
    check_suffix(file)
    runs = content["runs"]
    figure = Figure(figsize=(5 * (1 + len(runs)), 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 1 + len(runs))
    draw_error_types(panels[0], {title: run["error_types"] for title, run in runs.items()})
    for axes, (title, run) in zip(panels[1:], runs.items()):
        draw_error_curves(axes, title, run["error_curves"])
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


def check_suffix(file: str) -> None:
    """Raise EvaluationError unless pictures can be written to such a file."""
    if Path(file).suffix.lower() not in SUFFIXES:
        raise EvaluationError(
            f"{file}: expected a name that ends with one of {', '.join(SUFFIXES)}"
        )


def draw_error_types(axes: Axes, types: Mapping[str, Mapping[str, Any]]) -> None:
    """Bars of what each type costs, a group for each type.

    Args:
        axes: to draw into.
        types: {run: :class:`dense_kd.evaluation.analysis.ErrorTypes` as a dict}.
    """
    colours = colormaps[_PALETTE](np.linspace(0.1, 0.9, len(types)))
    for index, ((title, each), colour) in enumerate(zip(types.items(), colours)):
        costs = {**each["main"], **each["special"]}
        places = np.arange(len(costs)) + (index - (len(types) - 1) / 2) * 0.8 / len(types)
        axes.bar(places, list(costs.values()), 0.8 / len(types), color=colour, label=title)
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
    colours = colormaps[_PALETTE](np.linspace(0.0, 1.0, len(KINDS)))
    for kind, colour in zip(KINDS, colours):
        curve = np.asarray(curves["mean"][kind])
        label = f"{kind} {curves['areas'][kind]:.1f}"
        axes.fill_between(RECALL, below, curve, color=colour, label=label, linewidth=0)
        axes.plot(RECALL, curve, color="black", linewidth=0.6)
        below = curve
    axes.set(title=title, xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="lower left", fontsize="small")
