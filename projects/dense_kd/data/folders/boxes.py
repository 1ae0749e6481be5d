"""Boxes of annotations as boxes of the image that a detector gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from detectron2.structures import BoxMode

from .images import Header
from .problems import Problems
from .records import RawImage, RawObject

_ROUNDING = 1.0
"""Pixels by which a box may stick out of its image without a word."""
_DIGITS = 3
"""Of a pixel that are kept; a box whose side is less has no area."""

_ENOUGH = 10
"""Boxes, to judge by what all have in common."""

Box = tuple[float, float, float, float]


def seem_corners(boxes: Sequence[tuple[Box, Box, tuple[float, float]]], slack: float) -> bool:
    """Whether four numbers that stand for a place and a size are surely two corners.

    All would be corners of boxes in their images, and as they are read, more than a quarter leave
    them.

    Args:
        boxes: the four numbers as written, the corners that are read from them, and (width, height)
            of the image; all in the same unit.
        slack: by which a box may stick out.
    """
    outside = 0
    for (a, b, c, d), (x1, y1, x2, y2), (width, height) in boxes:
        if not (a < c <= width + slack and b < d <= height + slack):
            return False
        outside += min(x1, y1) < -slack or x2 > width + slack or y2 > height + slack
    return len(boxes) >= _ENOUGH and outside > len(boxes) / 4


def cleaned_objects(
    image: RawImage, header: Header, classes: dict[str, int], problems: Problems
) -> list[dict[str, Any]]:
    """The objects of an image in detectron2's format, each box inside the image.

    Boxes are those of the image as ``read_image`` of detectron2 gives it, turned by its EXIF
    orientation. The size that the annotations give tells which image they describe: this one;
    the pixels as they are stored, so the boxes are turned, too; or, if its sides have the same
    ratio, the image before it was resized, so the boxes are scaled with it. With any other size, or
    none, the boxes are taken as they are.

    Args:
        image: as it is written.
        header: of its file.
        classes: index of each name.
        problems: where boxes that are left out or changed are recorded.
    """
    width, height = header.size
    stored = _is_stored(image, header)
    scale = None if stored else _scale(image, header, problems)
    if stored:
        problems.add(
            "repaired", "image", "boxes turned by its EXIF orientation", image.file, "",
            f"orientation {header.orientation}",
        )  # fmt: skip
    seen, objects = set(), []
    for each in image.objects:
        box = each.box
        if each.relative:
            box = _scaled(box, width, height)
        elif stored:
            box = _turned(box, header)
        elif scale:
            box = _scaled(box, *scale)
        inside = _inside(box, width, height, each, image, problems)
        if inside is None:
            continue
        label = classes[each.label]
        if (label, inside, each.crowd) in seen:
            problems.add("dropped", "box", "twice the same", image.source, each.item, inside)
            continue
        seen.add((label, inside, each.crowd))
        x1, y1, x2, y2 = inside
        sides = round(x2 - x1, _DIGITS), round(y2 - y1, _DIGITS)
        objects.append(
            {
                "bbox": [x1, y1, *sides],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": label,
                "iscrowd": int(each.crowd),
                "area": _area(each, sides[0] * sides[1], scale),
            }
        )
    return objects


def _is_stored(image: RawImage, header: Header) -> bool:
    """Whether the annotations give the size of the file's pixels before they are turned."""
    return header.stored != header.size and image.size == header.stored


def _scale(image: RawImage, header: Header, problems: Problems) -> tuple[float, float] | None:
    """What the boxes are to be multiplied by, where the image was resized."""
    if image.size is None or image.size == header.size:
        return None
    (width, height), (own_width, own_height) = image.size, header.size
    found = f"{width:g} x {height:g} and {own_width} x {own_height} pixels"

    def repaired(reason: str) -> None:
        problems.add("repaired", "image", reason, image.file, "", found)

    # The size of a side may be rounded in either image.
    if width > 0 and height > 0 and (
        abs(width * own_height / own_width - height) <= 0.5 + height / own_height / 2
    ):  # fmt: skip
        fits_file = all(_fits(o.box, own_width, own_height) for o in image.objects)
        if not fits_file or all(_fits(o.box, width, height) for o in image.objects):
            repaired("size not that of the file, boxes scaled")
            return own_width / width, own_height / height
    repaired("size not that of the file, boxes kept")
    return None


def _fits(box: Box, width: float, height: float) -> bool:
    return box[2] <= width + _ROUNDING and box[3] <= height + _ROUNDING


def _scaled(box: Box, x: float, y: float) -> Box:
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def _turned(box: Box, header: Header) -> Box:
    """A box of the stored pixels in the turned image; orientations are EXIF's 5 to 8."""
    x1, y1, x2, y2 = box
    width, height = header.stored
    if header.orientation in (7, 8):  # the stored right side is up
        x1, x2 = width - x2, width - x1
    if header.orientation in (6, 7):  # the stored bottom is left
        y1, y2 = height - y2, height - y1
    return y1, x1, y2, x2


def _inside(
    box: Box, width: int, height: int, each: RawObject, image: RawImage, problems: Problems
) -> Box | None:
    """The part of a box in the image, rounded; None, and recorded, if nothing is left of it."""
    reason = None
    x1, y1, x2, y2 = box
    inside = (
        _clipped(x1, width),
        _clipped(y1, height),
        _clipped(x2, width),
        _clipped(y2, height),
    )
    if not all(map(math.isfinite, box)):
        reason = "with numbers that are not finite"
    elif x2 - x1 < 0.1**_DIGITS or y2 - y1 < 0.1**_DIGITS:
        reason = "without area"
    elif inside[0] >= inside[2] or inside[1] >= inside[3]:
        reason = "outside the image"
    if reason:
        problems.add("dropped", "box", reason, image.source, each.item, tuple(map(_short, box)))
        return None
    if max(abs(a - b) for a, b in zip(inside, box)) > _ROUNDING:
        found = f"{tuple(map(_short, box))} in {width} x {height}"
        reason = "clipped to the image"
        problems.add("repaired", "box", reason, image.source, each.item, found)
    return inside


def _clipped(value: float, side: int) -> float:
    return round(min(max(value, 0.0), float(side)), _DIGITS) if math.isfinite(value) else 0.0


def _area(each: RawObject, of_box: float, scale: tuple[float, float] | None) -> float:
    """The object's area, which COCO sorts it by: as written, but no larger than its box."""
    if each.area is None or each.area <= 0:
        return round(of_box, _DIGITS)
    area = each.area * scale[0] * scale[1] if scale else each.area
    return round(min(area, of_box), _DIGITS)


def _short(value: float) -> float:
    return float(f"{value:.6g}")
