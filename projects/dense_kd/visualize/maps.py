"""Maps of an image as rows of panels over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from ..checkpoint import replace_atomically
from ..diagnostics.figures import MapFigure, MapPanel, MapRow
from .inline_figures import plain
from .panels import PALETTE, check_suffix

__all__ = ["blended", "draw_maps", "maps_as_array", "save_maps"]

_SIGNED = "PuOr"  # like the other, for values of both signs
_OPACITY = 0.72
_RESOLUTION = 256
"""Most pixels along a side of a panel."""

# In inches; a scale is the bar and its numbers below a panel.
_PANEL, _GAP, _LINE, _BAR, _SCALE = 2.2, 0.12, 0.24, 0.08, 0.3
_LETTER = 0.55
"""Of its size, what a letter is wide."""


def save_maps(file: str, pixels: np.ndarray, figure: MapFigure) -> None:
    """Write the picture of :func:`draw_maps`.

    Args:
        file: to write, with one of :data:`.panels.SUFFIXES`; its folder is made.
        pixels, figure: see :func:`draw_maps`.

    Raises:
        EvaluationError: the file is of another kind.
    """
    check_suffix(file)
    picture = draw_maps(pixels, figure)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    kind = Path(file).suffix[1:].lower()
    # Most of the time would go into the last tenth of the size of a PNG.
    quick: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if kind == "png" else {}
    replace_atomically(file, lambda output: picture.savefig(output, format=kind, dpi=110, **quick))


def maps_as_array(pixels: np.ndarray, figure: MapFigure) -> np.ndarray:
    """RGB (H, W, 3) uint8, the picture of :func:`draw_maps`.

    Args:
        pixels, figure: see :func:`draw_maps`.
    """
    picture = draw_maps(pixels, figure)
    canvas = FigureCanvasAgg(picture)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_maps(pixels: np.ndarray, figure: MapFigure) -> Figure:
    """A row for each quantity: the image with its objects, then a panel for each level.

    The maps lie on the image in grey. Below each is its scale, which those of a row share.

    Args:
        pixels: RGB (H, W, 3), uint8, the image as the network gets it, without padding.
        figure: what is drawn.
    """
    inches = _PANEL / max(pixels.shape[:2])  # of a pixel
    height, width = (side * inches for side in pixels.shape[:2])
    columns = 1 + max(len(row.panels) for row in figure.rows)
    step = _LINE + height + _SCALE  # from row to row
    size = (_GAP + columns * (width + _GAP), 1.5 * _LINE + len(figure.rows) * step)
    picture = Figure(figsize=size)
    FigureCanvasAgg(picture)
    # One frame in inches for all: dozens of axes would take seconds.
    axes = picture.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0), autoscale_on=False)
    axes.text(_GAP, 0.8 * _LINE, plain(figure.title), weight="bold", va="center")
    shown = _shrunk(pixels)
    grey = _faint(shown)
    for index, row in enumerate(figure.rows):
        top = 1.5 * _LINE + index * step + _LINE
        for column, panel in enumerate([None, *row.panels]):
            left = _GAP + column * (width + _GAP)
            title, colours = row.title, shown
            if panel is not None:
                title = f"{row.title}, {panel.place}"
                colours = blended(grey, row, panel, pixels.shape[:2])
            axes.imshow(colours, extent=(left, left + width, top + height, top), aspect="auto")
            fitted = min(8.0, _fitting(title, width + 0.6 * _GAP))
            weight = "bold" if panel is None else None
            axes.text(
                left, top - 0.3 * _LINE, plain(title), fontsize=fitted, weight=weight, va="bottom"
            )
            _draw_boxes(axes, figure.boxes * inches, (left, top), dotted=panel is not None)
            if panel is not None:
                _draw_scale(axes, row, (left, top + height + 0.03), width)
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    return picture


def blended(grey: np.ndarray, row: MapRow, panel: MapPanel, size: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) in [0, 1]: the colours of a map over an image, each cell a square of its own.

    Args:
        grey: (h, w, 3) in [0, 1], the image.
        row: has the scale.
        panel: whose cells begin at the image's corner.
        size: (H, W) of the image in pixels of the network's input, which may be more than (h, w).
    """
    cells = [
        np.minimum(((np.arange(n) + 0.5) * side / n // panel.stride).astype(int), most - 1)
        for n, side, most in zip(grey.shape, size, panel.values.shape)
    ]
    share = (panel.values[np.ix_(*cells)] - row.low) / (row.high - row.low)
    colours = colormaps[_SIGNED if row.signed else PALETTE](share)[..., :3]
    return _OPACITY * colours + (1 - _OPACITY) * grey


def _draw_scale(axes: Axes, row: MapRow, corner: tuple[float, float], width: float) -> None:
    """A bar of the colours as they are on grey, its ends in numbers, and the unit between them."""
    left, top = corner
    ramp = MapPanel("", np.linspace(row.low, row.high, 128, dtype=np.float32)[None], 1)
    colours = blended(np.full((1, 128, 3), 0.5), row, ramp, ramp.values.shape)
    axes.imshow(colours, extent=(left, left + width, top + _BAR, top), aspect="auto")
    axes.add_patch(Rectangle((left, top), width, _BAR, fill=False, linewidth=0.5))
    low, high = (f"{value:.2g}" for value in (row.low, row.high))
    size = min(7.0, _fitting(f"{low}  {row.unit}  {high}", width))
    for text, share, side in ((low, 0.0, "left"), (row.unit, 0.5, "center"), (high, 1.0, "right")):
        place = (left + share * width, top + _BAR + 0.03)
        axes.text(*place, plain(text), fontsize=size, ha=side, va="top")


def _fitting(text: str, width: float) -> float:
    """The size in points at which a text is so many inches wide."""
    return 72 * width / (_LETTER * len(text))


def _draw_boxes(
    axes: Axes, boxes: np.ndarray, corner: tuple[float, float], *, dotted: bool
) -> None:
    left, top = corner
    for x1, y1, x2, y2 in boxes:
        # Thin over a map, which they would cover where objects are many.
        for colour, line in (("black", 0.9 if dotted else 1.6), ("white", 0.45 if dotted else 0.8)):
            box = Rectangle(
                (left + x1, top + y1),
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=colour,
                linewidth=line,
                linestyle=(0, (3, 4)) if dotted else "-",
            )
            axes.add_patch(box)


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    factor = _RESOLUTION / max(picture.size)
    if factor < 1:
        sides = (max(1, round(side * factor)) for side in picture.size)
        picture = picture.resize((next(sides), next(sides)), Image.Resampling.BICUBIC)
    else:
        times = max(1, int(factor))  # so that cells end at pixels
        picture = picture.resize(
            (picture.width * times, picture.height * times), Image.Resampling.NEAREST
        )
    return np.asarray(picture)


def _faint(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 3) in grey and with little contrast, so that colours over it can be told apart."""
    grey = pixels.astype(np.float32).mean(axis=2, keepdims=True) / 255
    return np.repeat(0.2 + 0.6 * grey, 3, axis=2)
