"""Training curves of a teacher, a baseline and a distilled student, as figures."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["Curves", "curves_as_svg", "save_curves"]

Curves = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
"""{"teacher", "baseline" or "distilled": for each seed the lines of detectron2's metrics.json}."""

# Legible on white and on black.
_COLOURS = {"teacher": "#8a8f98", "baseline": "#d9822b", "distilled": "#2f8fe0"}
_STYLES = ("-", "--", ":", "-.")
_KD = "kd_"
# Stands for the colour of the page's text, which differs between light and dark.
_TEXT = "#010203"
_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "svg.fonttype": "none",
    "text.color": _TEXT,
    "axes.edgecolor": _TEXT,
    "axes.labelcolor": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def curves_as_svg(curves: Curves) -> list[tuple[str, str]]:
    """The panels as (title, inline SVG) without background, in the colour of the page's text."""
    figures: list[tuple[str, str]] = []
    for title, draw in _panels(curves):
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
            figure = Figure(figsize=(6, 3.6), layout="constrained")
            FigureCanvasSVG(figure)
            draw(figure.add_subplot(), curves)
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        figures.append((title, _inline(buffer.getvalue(), f"figure-{len(figures)}", title)))
    return figures


def save_curves(file: str | BinaryIO, curves: Curves) -> None:
    """Write all panels into one PNG."""
    panels = _panels(curves)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6 * len(panels), 4), layout="constrained")
        FigureCanvasAgg(figure)
        for index, (title, draw) in enumerate(panels, start=1):
            axes = figure.add_subplot(1, len(panels), index)
            draw(axes, curves)
            axes.set_title(title)
        figure.savefig(file, format="png", dpi=100)


def _panels(curves: Curves) -> list[tuple[str, Callable[[Axes, Curves], None]]]:
    panels = [("Detection loss", _draw_detection), ("Detection loss by term", _draw_terms)]
    if any(_terms(record, kd=True) for run in curves.get("distilled", ()) for record in run):
        panels.append(("Distillation loss by term", _draw_distillation))
    return [*panels, ("Learning rate", _draw_learning_rate)]


def _draw_detection(axes: Axes, curves: Curves) -> None:
    """What the detectors themselves minimise, the same sum for all of them."""
    for name, runs in curves.items():
        for run in runs:
            points = [(r["iteration"], sum(_terms(r).values())) for r in run if _terms(r)]
            _plot(axes, points, name, name)
    _finish(axes, "loss")


def _draw_terms(axes: Axes, curves: Curves) -> None:
    _draw_each_term(axes, curves, ("baseline", "distilled"), kd=False)


def _draw_distillation(axes: Axes, curves: Curves) -> None:
    _draw_each_term(axes, curves, ("distilled",), kd=True)


def _draw_each_term(axes: Axes, curves: Curves, names: Sequence[str], kd: bool) -> None:
    for name in names:
        for run in curves.get(name, ()):
            terms = sorted({term for record in run for term in _terms(record, kd)})
            for style, term in zip(_STYLES * len(terms), terms):
                points = [(r["iteration"], r[term]) for r in run if term in r]
                label = term if len(names) == 1 else f"{name} {term}"
                _plot(axes, points, name, label, style)
    _finish(axes, "loss")


def _draw_learning_rate(axes: Axes, curves: Curves) -> None:
    for name, runs in curves.items():
        for run in runs[:1]:  # the same for every seed
            # Drawn wide to narrow, as the students' lie on each other.
            width = 5 if name == "baseline" else 1.6
            points = [(r["iteration"], r["lr"]) for r in run if "lr" in r]
            _plot(axes, points, name, name, width=width)
    _finish(axes, "learning rate")


def _terms(record: Mapping[str, Any], kd: bool = False) -> dict[str, float]:
    """The terms of the detection loss, or of the distillation methods, in a line of metrics."""
    prefix = _KD if kd else "loss_"
    return {key: value for key, value in record.items() if key.startswith(prefix)}


def _plot(
    axes: Axes,
    points: list[tuple[int, float]],
    name: str,
    label: str,
    style: str = "-",
    width: float = 1.6,
) -> None:
    labels = axes.get_legend_handles_labels()[1]
    axes.plot(
        *zip(*points) if points else ([], []),
        style,
        color=_COLOURS.get(name, _TEXT),
        linewidth=width,
        alpha=0.85,
        label="_" + label if label in labels else label,
    )


def _finish(axes: Axes, what: str) -> None:
    axes.set(xlabel="iteration", ylabel=what)
    axes.set_ylim(bottom=0)
    axes.grid(color=_TEXT, alpha=0.12)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=9)


def _inline(svg: str, identifier: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # HTML knows these without a declaration, and needs ids that are unique in the page.
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{identifier}-", svg)
    svg = re.sub(r'\swidth="[\d.]+pt"|\sheight="[\d.]+pt"', "", svg)
    svg = svg.replace(_TEXT, "currentColor")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1).strip()
