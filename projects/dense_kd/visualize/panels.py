"""Panels side by side, as a picture in a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..checkpoint import replace_atomically
from ..checkpoint.places import check_file
from ..evaluation.errors import EvaluationError

__all__ = ["PALETTE", "SUFFIXES", "check_picture", "check_suffix", "save_panels"]

SUFFIXES = (".png", ".svg", ".pdf")
PALETTE = "cividis"
"""Its order survives print in grey, and every kind of colour blindness."""


def check_suffix(file: str) -> None:
    """Raise EvaluationError unless pictures can be written to such a file."""
    if Path(file).suffix.lower() not in SUFFIXES:
        raise EvaluationError(
            f"{file}: expected a name that ends with one of {', '.join(SUFFIXES)}"
        )


def check_picture(file: str) -> None:
    """Whether a picture can be written, before it is drawn.

    Raises:
        EvaluationError: see :func:`check_suffix`.
        SaveError: it cannot be written there.
    """
    check_suffix(file)
    check_file(file)


def save_panels(file: str, drawings: Sequence[Callable[[Axes], None]]) -> None:
    """Write a picture.

    Args:
        file: to write, with one of :data:`SUFFIXES`; its folder is made.
        drawings: one for each panel, from the left; each is given the axes to draw into.

    Raises:
        EvaluationError: the file is of another kind.
    """
    check_suffix(file)
    figure = Figure(figsize=(5 * len(drawings), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, draw in zip(figure.subplots(1, len(drawings), squeeze=False)[0], drawings):
        draw(axes)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    kind = Path(file).suffix[1:].lower()
    replace_atomically(file, lambda output: figure.savefig(output, format=kind, dpi=120))
