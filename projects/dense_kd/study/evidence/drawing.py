"""Charts as SVG files whose bytes depend on the numbers alone, whatever is installed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from html import escape

__all__ = ["COLORS", "Axis", "Interval", "Line", "Point", "chart"]

COLORS = (
    *("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777"),
    *("#994f00", "#000000", "#00796b", "#9467bd", "#c2185b"),
)
_WIDTH, _HEIGHT = 680, 400
_LEFT, _TOP, _BOTTOM = 60, 20, 50
_LABELS = 150  # left of an axis with names
_LEGEND, _NAME, _NOTHING = 190, 130, 20  # right of the axes: for lines, points and intervals
_FONT = 'font-family="sans-serif" font-size="12"'


@dataclasses.dataclass(frozen=True)
class Axis:
    """What stands at an axis.

    Attributes:
        title: with the unit.
        labels: of the whole numbers from 0, in place of numbers.
    """

    title: str
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Line:
    """Points joined by a line.

    Attributes:
        title: in the legend.
        points: (x, y).
        color: one of :data:`COLORS`.
        dashed: how it is drawn.
    """

    title: str
    points: tuple[tuple[float, float], ...]
    color: str
    dashed: bool = False


@dataclasses.dataclass(frozen=True)
class Point:
    """A dot with a name beside it."""

    title: str
    x: float
    y: float
    color: str = COLORS[0]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its interval, or without one, and the values that it is of, in a row.

    Attributes:
        row: a whole number from 0, one of the labels of the axis.
        mean: a dot.
        low, high: ends of a bar; None draws none.
        values: small dots.
    """

    row: int
    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...] = ()
    color: str = COLORS[0]


def chart(title: str, x: Axis, y: Axis, marks: Sequence[Line | Point | Interval]) -> str:
    """An SVG file.

    Args:
        title: for who cannot see it.
        x, y: axes; one with labels goes from top to bottom, or from left to right.
        marks: at least one. Intervals are on an x axis of numbers and a y axis of labels.
    """
    places = [place for mark in marks for place in _places(mark)]
    height = _TOP + _BOTTOM + 18 * len(y.labels) if y.labels else _HEIGHT
    left = _LABELS if y.labels else _LEFT
    has_lines = any(isinstance(mark, Line) for mark in marks)
    has_points = any(isinstance(mark, Point) for mark in marks)
    right = _WIDTH - (_LEGEND if has_lines else _NAME if has_points else _NOTHING)
    across = _Scale([p[0] for p in places], left, right)
    down = (
        _Scale([-0.5, len(y.labels) - 0.5], _TOP, height - _BOTTOM, exact=True)
        if y.labels
        else _Scale([p[1] for p in places], height - _BOTTOM, _TOP)
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        *_axes(x, y, across, down, height),
    ]
    legend = 0
    for mark in marks:
        if isinstance(mark, Line):
            legend += 1
        parts += _drawn(mark, across, down, legend)
    return "\n".join([*parts, "</svg>", ""])


class _Scale:
    """From numbers to places, with round numbers at its ticks."""

    def __init__(
        self, values: Sequence[float], start: float, stop: float, exact: bool = False
    ) -> None:
        low, high = min(values), max(values)
        if low == high:
            low, high = low - 1, high + 1
        margin = 0 if exact else 0.04 * (high - low)
        self.low, self.high = low - margin, high + margin
        self.start, self.stop = start, stop

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Some five, of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough)
        first = math.ceil(self.low / step)
        return [n * step for n in range(first, math.floor(self.high / step) + 1)]


def _places(mark: Line | Point | Interval) -> list[tuple[float, float]]:
    if isinstance(mark, Line):
        return list(mark.points)
    if isinstance(mark, Point):
        return [(mark.x, mark.y)]
    known = [v for v in (0.0, mark.mean, mark.low, mark.high, *mark.values) if v is not None]
    return [(value, float(mark.row)) for value in known]


def _axes(x: Axis, y: Axis, across: _Scale, down: _Scale, height: float) -> Iterator[str]:
    bottom, left, right = height - _BOTTOM, across.start, across.stop
    for value in across.ticks():
        place = across(value)
        yield _path([(place, _TOP), (place, bottom)], "#dddddd")
        yield _text(place, bottom + 16, _number(value), "middle")
    if y.labels:
        for row, label in enumerate(y.labels):
            yield _text(left - 6, down(row) + 4, label, "end")
        if across.low < 0 < across.high:
            yield _path([(across(0), _TOP), (across(0), bottom)], "#555555")
    else:
        for value in down.ticks():
            place = down(value)
            yield _path([(left, place), (right, place)], "#dddddd")
            yield _text(left - 6, place + 4, _number(value), "end")
        yield (
            f'<text {_FONT} transform="translate(16 {_round((_TOP + bottom) / 2)}) rotate(-90)" '
            f'text-anchor="middle">{escape(y.title)}</text>'
        )
    yield _path([(left, _TOP), (left, bottom), (right, bottom)], "#555555")
    yield _text((left + right) / 2, height - 12, x.title, "middle")


def _drawn(
    mark: Line | Point | Interval, across: _Scale, down: _Scale, legend: int
) -> Iterator[str]:
    if isinstance(mark, Line):
        places = [(across(x), down(y)) for x, y in mark.points]
        yield _path(places, mark.color, 2, mark.dashed)
        place, begin = _TOP + 16 * legend, across.stop + 12
        yield _path([(begin, place - 4), (begin + 22, place - 4)], mark.color, 2, mark.dashed)
        yield _text(begin + 28, place, mark.title)
    elif isinstance(mark, Point):
        yield _dot(across(mark.x), down(mark.y), 3.5, mark.color)
        yield _text(across(mark.x) + 6, down(mark.y) + 4, mark.title)
    else:
        row = down(mark.row)
        if mark.low is not None and mark.high is not None:
            yield _path([(across(mark.low), row), (across(mark.high), row)], mark.color, 3)
        for value in mark.values:
            yield _dot(across(value), row, 2, "#999999")
        yield _dot(across(mark.mean), row, 4.5, mark.color)


def _path(
    places: Sequence[tuple[float, float]], color: str, width: float = 1, dashed: bool = False
) -> str:
    points = " ".join(f"{_round(x)},{_round(y)}" for x, y in places)
    dashes = ' stroke-dasharray="6 4"' if dashed else ""
    return (
        f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="{width}"{dashes}/>'
    )


def _dot(x: float, y: float, radius: float, color: str) -> str:
    return f'<circle cx="{_round(x)}" cy="{_round(y)}" r="{radius}" fill="{color}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return (
        f'<text {_FONT} x="{_round(x)}" y="{_round(y)}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _round(value: float) -> str:
    """One digit, and no sign before a zero: what the last bit of a platform's numbers is drops."""
    return f"{round(value, 1) + 0.0:.1f}"


def _number(value: float) -> str:
    return f"{round(value, 6) + 0.0:g}"
