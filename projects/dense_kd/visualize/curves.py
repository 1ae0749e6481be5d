"""Training curves of runs, as figures: a line for each, and a band where it has several seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .inline_figures import STYLE, TEXT, as_svg, plain

__all__ = ["BANDS", "Curves", "curves_as_svg", "diagnostics_as_svg", "save_curves"]

Curves = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
"""{name of a run: for each seed the lines of detectron2's metrics.json}."""

BANDS = (
    "Bands reach from the least to the greatest of the seeds that were trained so far, lines are "
    "their mean."
)
"""How to read curves of several seeds."""

# Legible on white and on black, and told apart by those who see fewer colours.
_COLOURS = {"teacher": "#8a8f98", "baseline": "#d9822b", "distilled": "#2f8fe0"}
_PALETTE = ("#2f8fe0", "#d9822b", "#8a8f98", "#1a9e77", "#c86fa8", "#a58b00", "#7d6bd0")
_STYLES = ("-", "--", ":", "-.")
_KD, _DIAGNOSTIC, _AP = "kd_", "diag/", "bbox/AP"
_FAMILIES = (
    *("tower_share", "conflicts_per_positive", "conflicts_per_location"),
    *("balance_share", "balance_factor"),
)
"""Of diagnostics: what is before the ``_`` that their members differ behind, with more than one."""
_MOST = 8
"""Lines in a panel; more than these have a panel for each term."""

Points = Mapping[int, float]


class _Line(NamedTuple):
    name: str
    """Of the run, which gives the colour."""
    label: str
    seeds: Sequence[Points]
    style: str = "-"
    width: float = 1.6


class _Panel(NamedTuple):
    title: str
    what: str
    lines: Sequence[_Line]
    from_zero: bool = True


def curves_as_svg(curves: Curves) -> list[tuple[str, str]]:
    """The panels as (title, inline SVG) without background, in the colour of the page's text."""
    return _as_svg(_panels(curves), curves, "figure")


def diagnostics_as_svg(curves: Curves) -> list[tuple[str, str]]:
    """As :func:`curves_as_svg`, of scalars whose names begin with ``diag/``; [] if there are none.

    Those that differ behind the first ``_`` (``diag/share_bckd``, ``diag/share_pkd``), or behind
    one of :data:`_FAMILIES`, share panels.
    """
    families: dict[str, list[str]] = {}
    for key in _keys(curves, _DIAGNOSTIC):
        name = key.removeprefix(_DIAGNOSTIC)
        family = next((f for f in _FAMILIES if name.startswith(f)), name.partition("_")[0])
        families.setdefault(family.replace("_", " "), []).append(key)
    panels = [
        panel
        for family, keys in families.items()
        for panel in _of_terms(family, "", curves, keys, from_zero=False)
    ]
    return _as_svg(panels, curves, "diagnostic")


def save_curves(file: str | BinaryIO, curves: Curves) -> None:
    """Write all panels into one PNG."""
    panels = _panels(curves)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6 * len(panels), 4), layout="constrained")
        FigureCanvasAgg(figure)
        for index, panel in enumerate(panels, start=1):
            axes = figure.add_subplot(1, len(panels), index)
            _draw(axes, panel, _colours(curves))
            axes.set_title(plain(panel.title))
        figure.savefig(file, format="png", dpi=100)


def _as_svg(panels: Sequence[_Panel], curves: Curves, prefix: str) -> list[tuple[str, str]]:
    def draw(panel: _Panel) -> Callable[[Axes], None]:
        return lambda axes: _draw(axes, panel, _colours(curves))

    return [
        (panel.title, as_svg(draw(panel), f"{prefix}-{index}", panel.title))
        for index, panel in enumerate(panels)
    ]


def _panels(curves: Curves) -> list[_Panel]:
    panels = []
    if any(sum(_AP in record for record in run) > 1 for runs in curves.values() for run in runs):
        panels.append(_Panel("AP on the images for evaluation", "AP", [*_lines(curves, _AP)]))
    # What the detectors themselves minimise, the same sum for all of them.
    total = [_Line(name, name, [_sums(run) for run in runs]) for name, runs in curves.items()]
    panels.append(_Panel("Detection loss", "loss", total))
    students = {name: runs for name, runs in curves.items() if name != "teacher"} or curves
    title = "Detection loss by term"
    panels += _of_terms(title, "loss", students, _keys(students, "loss_"), labelled=True)
    distilled = {name: {name: runs} for name, runs in curves.items()}
    distilled = {name: each for name, each in distilled.items() if _keys(each, _KD)}
    for name, each in distilled.items():
        of_which = f": {name}" if len(distilled) > 1 else ""
        title = f"Distillation loss by term{of_which}"
        panels += _of_terms(title, "loss", each, _keys(each, _KD))
    first = {name: runs[:1] for name, runs in curves.items()}  # the same for every seed
    rates = [*_lines(first, "lr")]
    # Drawn wide to narrow, as those of runs with one schedule lie on each other.
    steps = max(len(rates) - 1, 1)
    rates = [line._replace(width=5 - 3.4 * i / steps) for i, line in enumerate(rates)]
    return [*panels, _Panel("Learning rate", "learning rate", rates)]


def _of_terms(
    title: str,
    what: str,
    curves: Curves,
    terms: Sequence[str],
    *,
    labelled: bool = False,
    from_zero: bool = True,
) -> list[_Panel]:
    """One panel of several terms, or one for each where their lines would be too many."""
    lines = {term: [*_lines(curves, term)] for term in terms}
    if len(terms) > 1 and sum(map(len, lines.values())) > _MOST:
        return [
            _Panel(f"{title}: {term.removeprefix(_DIAGNOSTIC)}", what, each, from_zero)
            for term, each in lines.items()
        ]
    labelled = labelled or len(curves) > 1
    shared = [
        line._replace(style=style, label=f"{line.name} {label}" if labelled else label)
        for style, (term, each) in zip(_STYLES * (1 + len(lines)), lines.items())
        for label in [term.removeprefix(_DIAGNOSTIC)]
        for line in each
    ]
    return [_Panel(title, what, shared, from_zero)]


def _lines(curves: Curves, key: str) -> Iterator[_Line]:
    for name, runs in curves.items():
        seeds = [
            {r["iteration"]: r[key] for r in run if r.get(key) is not None and "iteration" in r}
            for run in runs
        ]
        if any(seeds):
            yield _Line(name, name, seeds)


def _sums(run: Sequence[Mapping[str, Any]]) -> Points:
    terms = {r["iteration"]: _terms(r) for r in run if "iteration" in r}
    return {
        iteration: sum(each.values())
        for iteration, each in terms.items()
        if each and None not in each.values()
    }


def _terms(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key.startswith("loss_")}


def _keys(curves: Curves, prefix: str) -> list[str]:
    """The scalars of that prefix, in the order of the alphabet."""
    return sorted(
        {
            key
            for runs in curves.values()
            for run in runs
            for record in run
            for key in record
            if key.startswith(prefix)
        }
    )


def _colours(curves: Curves) -> dict[str, str]:
    free = [colour for colour in _PALETTE if colour not in {_COLOURS.get(name) for name in curves}]
    others = [name for name in curves if name not in _COLOURS]
    return {**_COLOURS, **{name: free[i % len(free)] for i, name in enumerate(others)}}


def _draw(axes: Axes, panel: _Panel, colours: Mapping[str, str]) -> None:
    for name, label, seeds, style, width in panel.lines:
        iterations = sorted({iteration for each in seeds for iteration in each})
        values = [[each[i] for each in seeds if i in each] for i in iterations]
        look: dict[str, Any] = {"color": colours.get(name, TEXT), "linewidth": width}
        means = [sum(each) / len(each) for each in values]
        marker = "o" if len(iterations) < 2 else None
        axes.plot(iterations, means, style, label=plain(label), alpha=0.9, marker=marker, **look)
        if len(seeds) > 1:
            bounds = [*map(min, values)], [*map(max, values)]
            axes.fill_between(iterations, *bounds, color=look["color"], alpha=0.25, linewidth=0)
    axes.set(xlabel="iteration", ylabel=panel.what)
    if panel.from_zero:
        axes.set_ylim(bottom=0)
    axes.grid(color=TEXT, alpha=0.12)
    if panel.lines:
        axes.legend(fontsize=9)
