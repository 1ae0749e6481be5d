"""Drawing of one image of the generated "shapes" dataset."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image, ImageChops, ImageDraw

__all__ = ["CLASSES", "DrawnObject", "draw_image"]

# From the most to the least frequent.
CLASSES = ("circle", "square", "triangle", "star", "cross")

_FREQUENCY_EXPONENT = 0.8
_EMPTY_FRACTION = 0.02
_SUPERSAMPLING = 3
_MIN_SIDE = 14.0  # pixels
_MAX_SIDE = 0.7  # fraction of the shorter image side
_MIN_INSIDE = 0.5  # fraction of an object inside the image
_MIN_VISIBLE = 0.3  # fraction of an object that is neither outside the image nor hidden
_MIN_VISIBLE_PIXELS = 12
_MIN_CONTRAST = 60.0  # distance in RGB between an object and what lies under it
_MIN_OUTLINE_SIDE = 24.0  # a smaller outline is filled by its own stroke
_TRIES = 20


@dataclasses.dataclass(frozen=True)
class DrawnObject:
    """One object of an image.

    Attributes:
        category: index into :data:`CLASSES`.
        box: tight integer (x, y, width, height) of the part inside the image, occluded or not.
        area: number of pixels of the filled silhouette inside the image, occluded or not.
    """

    category: int
    box: tuple[int, int, int, int]
    area: int


def draw_image(
    rng: np.random.Generator, height: int, width: int, max_objects: int = 5
) -> tuple[np.ndarray, list[DrawnObject]]:
    """Draw objects on a textured, cluttered background.

    Class, size, colour, texture and position are independent of each other, so only the shape
    tells the class.

    Args:
        rng: the only source of randomness.
        height: image height in pixels.
        width: image width in pixels.
        max_objects: an image holds 1 to this many objects; about 2 % of the images hold none.

    Returns:
        The RGB image (uint8, HxWx3) and its objects. Each has at least 30 % of its pixels visible.
    """
    canvas = _background(rng, height, width)
    _draw_clutter(rng, canvas)
    objects: list[DrawnObject] = []
    if rng.random() >= _EMPTY_FRACTION:
        frequencies = np.arange(1, len(CLASSES) + 1) ** -_FREQUENCY_EXPONENT
        frequencies /= frequencies.sum()
        occlusion = _Occlusion(height, width)
        for _ in range(rng.integers(1, max_objects + 1)):
            category = int(rng.choice(len(CLASSES), p=frequencies))
            drawn = _draw_object(rng, canvas, occlusion, category)
            if drawn is not None:
                objects.append(drawn)
    noise = rng.standard_normal(canvas.shape, dtype=np.float32)
    canvas += noise * np.float32(rng.uniform(2, 14))
    return np.clip(canvas, 0, 255).astype(np.uint8), objects


class _Occlusion:
    """Which object is on top at each pixel, to refuse objects that would hide another one."""

    def __init__(self, height: int, width: int) -> None:
        self._top = np.zeros((height, width), dtype=np.int64)  # 0 is the background
        self._visible = [0]
        self._required = [0.0]

    def add(self, window: tuple[slice, slice], ink: np.ndarray, total: int) -> bool:
        """Put an object on top unless it or one below would be too little visible.

        Args:
            window: the part of the image that `ink` is about.
            ink: bool mask of the pixels that the object covers.
            total: number of pixels of the object, those outside the image included.

        Returns:
            Whether the object was added.
        """
        inside = int(ink.sum())
        if inside < max(_MIN_INSIDE * total, _MIN_VISIBLE_PIXELS):
            return False
        top = self._top[window]
        hidden = np.bincount(top[ink], minlength=len(self._visible))
        visible = np.array(self._visible) - hidden
        if np.any(visible[1:] < np.array(self._required)[1:]):
            return False
        top[ink] = len(self._visible)
        self._visible = [*visible.tolist(), inside]
        self._required.append(max(_MIN_VISIBLE * total, _MIN_VISIBLE_PIXELS))
        return True


def _draw_object(
    rng: np.random.Generator, canvas: np.ndarray, occlusion: _Occlusion, category: int
) -> DrawnObject | None:
    """Draw one object, or nothing if no place is found where all objects stay visible."""
    height, width = canvas.shape[:2]
    side = float(np.exp(rng.uniform(np.log(_MIN_SIDE), np.log(_MAX_SIDE * min(height, width)))))
    points = _outline(rng, CLASSES[category]) * side
    stroke = None
    if side >= _MIN_OUTLINE_SIDE and rng.random() < 0.2:
        stroke = float(rng.uniform(0.05, 0.1) * side)
    for _ in range(_TRIES):
        placed = points + rng.uniform((0, 0), (width, height))
        silhouette, origin = _rasterize(placed)
        coverage = silhouette if stroke is None else _rasterize(placed, stroke)[0]
        window, part = _windows(silhouette.shape, origin, canvas.shape)
        ink = coverage >= 0.5
        if occlusion.add(window, ink[part], int(ink.sum())):
            break
    else:
        return None

    alpha = rng.uniform(0.5, 1.0) if rng.random() < 0.5 else 1.0
    under = canvas[window][ink[part]].mean(axis=0)
    fill = _contrasting_colour(rng, under, alpha)
    if rng.random() < 0.3:
        other = _contrasting_colour(rng, under, alpha)
        field = _texture(rng, *ink[part].shape)
        fill = fill + field[..., None] * (other - fill)
    _blend(canvas[window], coverage[part] * np.float32(alpha), fill)

    inside = silhouette[part] >= 0.5
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    x, y = window[1].start + int(columns[0]), window[0].start + int(rows[0])
    box = (x, y, int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1)
    return DrawnObject(category, box, int(inside.sum()))


def _outline(rng: np.random.Generator, name: str) -> np.ndarray:
    """Return a randomly stretched and rotated polygon (Nx2) whose longer box side is 1."""
    if name == "circle":
        points = _polar(np.ones(64))
    elif name == "square":
        points = _polar(np.ones(4))
    elif name == "triangle":
        points = _polar(np.ones(3))
    elif name == "star":
        points = _polar(np.tile([1.0, rng.uniform(0.35, 0.5)], 5))
    elif name == "cross":
        a = rng.uniform(0.25, 0.4)
        quarter = np.array([[a, 1.0], [a, a], [1.0, a]])
        quarters = [quarter @ np.array([[c, -s], [s, c]]) for c, s in _QUARTER_TURNS]
        points = np.concatenate(quarters)
    else:
        raise ValueError(f"unknown shape {name!r}; expected one of {', '.join(CLASSES)}")
    # A square given by its corners on the axes would be stretched to a rhombus.
    if name == "square":
        points = points @ _rotation(np.pi / 4)
    points = points * (1.0, rng.uniform(0.55, 1.0))
    points = points @ _rotation(rng.uniform(0, 2 * np.pi))
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) / (high - low).max()


# (cosine, sine), exact where np.cos(np.pi / 2) is not.
_QUARTER_TURNS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def _polar(radii: np.ndarray) -> np.ndarray:
    """Return the points at these distances from the origin, at equally spaced angles."""
    angles = np.arange(len(radii)) * (2 * np.pi / len(radii))
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _rasterize(
    points: np.ndarray, stroke: float | None = None, closed: bool = True
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the anti-aliased coverage (float32 in [0, 1]) of a polygon and its (x, y) origin.

    Args:
        points: Nx2 in pixels.
        stroke: if given, only a line of this width is drawn: inside the polygon if it is closed,
            so that its box is that of the filled polygon, else centred on the path.
        closed: whether the points are a polygon or an open path.
    """
    margin = 1.0 if closed or stroke is None else 1.0 + stroke / 2
    low = np.floor(points.min(axis=0) - margin).astype(int)
    size = np.ceil(points.max(axis=0) + margin).astype(int) - low
    # PIL puts integer coordinates at pixel centres.
    path = [tuple(p) for p in ((points - low) * _SUPERSAMPLING - 0.5).tolist()]
    big = tuple((size * _SUPERSAMPLING).tolist())
    mask = Image.new("L", big)
    if closed:
        ImageDraw.Draw(mask).polygon(path, fill=255)
    if stroke is not None:
        line = Image.new("L", big)
        if closed:
            path, stroke = [*path, path[0], path[1]], 2 * stroke
        line_width = max(1, round(stroke * _SUPERSAMPLING))
        ImageDraw.Draw(line).line(path, fill=255, width=line_width, joint="curve")
        mask = ImageChops.darker(mask, line) if closed else line
    coverage = np.asarray(mask.reduce(_SUPERSAMPLING), dtype=np.float32) / 255
    return coverage, (int(low[0]), int(low[1]))


def _windows(
    shape: tuple[int, ...], origin: tuple[int, int], canvas: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the part of the canvas under a patch at `origin` and the part of the patch on it."""
    x, y = origin
    top, left = min(max(y, 0), canvas[0]), min(max(x, 0), canvas[1])
    bottom, right = max(top, min(y + shape[0], canvas[0])), max(left, min(x + shape[1], canvas[1]))
    return (
        (slice(top, bottom), slice(left, right)),
        (slice(top - y, bottom - y), slice(left - x, right - x)),
    )


def _blend(target: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> None:
    target += alpha[..., None] * (colour.astype(np.float32) - target)


def _contrasting_colour(rng: np.random.Generator, under: np.ndarray, alpha: float) -> np.ndarray:
    """Return a random colour that differs visibly from `under` once blended with `alpha`."""
    for _ in range(_TRIES):
        colour = rng.uniform(0, 255, 3)
        if rng.random() < 0.3:
            colour = under + rng.uniform(0.3, 0.6) * (colour - under)
        if alpha * np.linalg.norm(colour - under) >= _MIN_CONTRAST:
            return colour
    return np.full(3, 255.0 if under.mean() < 128 else 0.0)


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    start, end, tint = rng.uniform(0, 255, (3, 3)).astype(np.float32)
    base = _texture(rng, height, width, kind=rng.choice(["gradient", "noise"]))
    canvas = start + base[..., None] * (end - start)
    strength = np.float32(rng.uniform(0, 0.5))
    _blend(canvas, strength * _texture(rng, height, width), tint)
    return canvas


def _draw_clutter(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Draw open lines and blobs, which are no objects."""
    height, width = canvas.shape[:2]
    for _ in range(rng.integers(0, 4)):
        side = float(np.exp(rng.uniform(np.log(_MIN_SIDE), np.log(max(height, width)))))
        if rng.random() < 0.6:
            # Thin for its length, or a line would pass for a rectangle.
            points = rng.uniform(-0.5, 0.5, (rng.integers(2, 5), 2)) * side
            stroke = float(rng.uniform(1, max(1.5, 0.06 * side)))
        else:
            # Low harmonics of a large amplitude, or a blob would pass for an ellipse.
            angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
            waves = [
                rng.uniform(0.15, 0.35) * np.sin(order * angles + rng.uniform(0, 2 * np.pi))
                for order in (2, 3)
            ]
            outline = _polar(1 + np.sum(waves, axis=0))
            points, stroke = outline * (0.25 * min(side, 0.5 * width)), None
        placed = points + rng.uniform((0, 0), (width, height))
        coverage, origin = _rasterize(placed, stroke, closed=stroke is None)
        window, part = _windows(coverage.shape, origin, canvas.shape)
        alpha = np.float32(rng.uniform(0.4, 1.0))
        _blend(canvas[window], coverage[part] * alpha, rng.uniform(0, 255, 3))


def _texture(
    rng: np.random.Generator, height: int, width: int, kind: str | None = None
) -> np.ndarray:
    """Return a float32 HxW pattern with values in [0, 1]."""
    if kind is None:
        kind = rng.choice(["gradient", "stripes", "checker", "noise"])
    if kind == "noise":
        cells = rng.uniform(0, 1, rng.integers(3, 13, 2)).astype(np.float32)
        smooth = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        return np.clip(np.asarray(smooth), 0, 1)
    angle = rng.uniform(0, 2 * np.pi)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)[None]
    along = c * x + s * y
    if kind == "gradient":
        along -= along.min()
        return along / max(float(along.max()), 1.0)
    frequency = np.float32(2 * np.pi / rng.uniform(4, max(8, max(height, width) / 4)))
    wave = np.sin(frequency * along)
    if kind == "checker":
        wave *= np.sin(frequency * (c * y - s * x))
    return 0.5 + 0.5 * np.clip(np.float32(rng.uniform(1, 8)) * wave, -1, 1)
