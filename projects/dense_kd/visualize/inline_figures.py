"""Figures of matplotlib as SVG that stands inside of a page, in the colour of its text."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["STYLE", "TEXT", "as_svg", "plain"]

TEXT = "#010203"
"""Stands for the colour of the page's text, which differs between light and dark."""

STYLE: dict[Any, Any] = {
    "font.size": 11,
    "svg.fonttype": "none",
    "text.color": TEXT,
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def as_svg(draw: Callable[[Axes], None], identifier: str, title: str) -> str:
    """What ``draw`` draws, without background.

    Args:
        draw: is given the axes of the figure.
        identifier: what ids of the figure begin with, unique in the page.
        title: for who cannot see the figure.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": identifier}):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), identifier, title)


def plain(label: str) -> str:
    """A label that matplotlib shows as it is: no formula, and no sign to leave it out."""
    label = label.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def _inline(svg: str, identifier: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # HTML knows these without a declaration, and needs ids that are unique in the page.
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{identifier}-", svg)
    svg = re.sub(r'\swidth="[\d.]+pt"|\sheight="[\d.]+pt"', "", svg)
    svg = svg.replace(TEXT, "currentColor")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1).strip()
