"""Validation images with the boxes of the truth and of several detectors, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.structures import Boxes, BoxMode, pairwise_iou
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from ..data.build import objects_of

__all__ = ["ComparedImage", "Panel", "choose_images", "compare", "draw_boxes", "font", "match"]

# Bright enough for the text on them to be black.
_COLOURS = ("#ffb000", "#4cc9f0", "#8fe388", "#ff7fb0", "#c5a3ff", "#ffffff", "#ff8552", "#e6e35c")
_FONT_SIZE = 15


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture of a row: whose boxes, drawn where, and how good they are in words."""

    title: str
    picture: Image.Image
    caption: str


@dataclasses.dataclass(frozen=True)
class ComparedImage:
    """One validation image: the truth and every detector."""

    name: str
    panels: list[Panel]


def choose_images(
    dataset: Sequence[Mapping[str, Any]], count: int, min_objects: int = 3
) -> list[Mapping[str, Any]]:
    """Choose images spread evenly over a dataset, the same ones each time.

    Args:
        dataset: dicts in detectron2's standard format.
        count: how many; all of a smaller dataset.
        min_objects: in each, unless fewer than ``count`` images have so many.
    """
    busy = [image for image in dataset if len(objects_of(image)) >= min_objects]
    if len(busy) < count:
        busy = list(dataset)
    picks = np.linspace(0, len(busy) - 1, min(count, len(busy))).round().astype(int)
    return [busy[i] for i in picks]


@torch.no_grad()
def compare(
    images: Sequence[Mapping[str, Any]],
    detectors: Mapping[str, nn.Module],
    class_names: Sequence[str],
    *,
    score_threshold: float,
    scale: int = 3,
    augmentations: Sequence[Any] = (),
    longest_edge: int | None = None,
) -> list[ComparedImage]:
    """Run detectors on images, and draw what is there and what they find.

    Args:
        images: dicts in detectron2's standard format with boxes.
        detectors: {title: detector}; each is given the images in its own ``input_format`` (BGR if
            it has none), and left in eval mode.
        class_names: K names.
        score_threshold: detections below are not drawn.
        scale: enlargement of the pictures, so that labels are legible on small images.
        augmentations: of detectron2, that resize what the detectors are given; () shows them the
            images at their own size.
        longest_edge: of the pictures, in pixels, instead of ``scale``.
    """
    formats = {title: getattr(d, "input_format", "BGR") for title, d in detectors.items()}
    mappers = {
        image_format: DatasetMapper(
            is_train=False, augmentations=list(augmentations), image_format=image_format
        )
        for image_format in set(formats.values())
    }
    shown = DatasetMapper(is_train=False, augmentations=[], image_format="RGB")
    rows = []
    for image in images:
        pixels = shown(dict(image))["image"].permute(1, 2, 0).numpy()
        factor = scale if longest_edge is None else longest_edge / max(pixels.shape[:2])
        boxes, classes = _truth(image)
        names = [class_names[c] for c in classes]
        picture = draw_boxes(pixels, boxes, names, classes, scale=factor)
        panels = [Panel("truth", picture, _count(len(classes), "object"))]
        for title, detector in detectors.items():
            inputs = mappers[formats[title]](dict(image))
            found = detector.eval()([inputs])[0]["instances"].to("cpu")
            found = found[found.scores >= score_threshold]
            correct = match(found.pred_boxes.tensor, found.pred_classes, boxes, classes)
            labels = [
                f"{'' if right else '✗ '}{class_names[c]} {score:.2f}"
                for right, c, score in zip(correct, found.pred_classes, found.scores)
            ]
            picture = draw_boxes(
                pixels, found.pred_boxes.tensor, labels, found.pred_classes, scale=factor
            )
            hits = sum(correct)
            caption = f"{hits} of {len(classes)} found, {len(correct) - hits} wrong"
            panels.append(Panel(title, picture, caption))
        name = str(image["file_name"]).rsplit("/", 1)[-1]
        rows.append(ComparedImage(name, panels))
    return rows


def match(
    boxes: Tensor, classes: Tensor, true_boxes: Tensor, true_classes: Tensor, min_iou: float = 0.5
) -> list[bool]:
    """Which detections, best first, are right: of the class and place of a truth still free.

    Args:
        boxes, classes: (D, 4) and (D,), by falling score.
        true_boxes, true_classes: (T, 4) and (T,).
        min_iou: with the truth.
    """
    overlap = pairwise_iou(Boxes(boxes), Boxes(true_boxes))  # (D, T)
    overlap = overlap * (classes[:, None] == true_classes[None])
    correct = []
    for row in overlap:
        right = row.numel() > 0 and bool(row.max() >= min_iou)
        if right:
            overlap[:, row.argmax()] = 0
        correct.append(right)
    return correct


def draw_boxes(
    pixels: np.ndarray,
    boxes: Tensor,
    labels: Sequence[str],
    classes: Sequence[int] | Tensor,
    *,
    scale: float = 3,
    weight: float = 1.0,
) -> Image.Image:
    """Draw labelled boxes on an enlarged image, the first ones on top.

    Args:
        pixels: RGB (H, W, 3), uint8.
        boxes: (D, 4) in pixels of the image.
        labels: D texts.
        classes: D indices, which choose the colours.
        scale: enlargement of the image.
        weight: of lines and letters, above 1 for large pictures.
    """
    height, width = pixels.shape[:2]
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    picture = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    letters = font(weight)
    line = max(1, round(2 * weight))
    colours = [_COLOURS[int(c) % len(_COLOURS)] for c in classes]
    # Labels after all boxes: a line through a text makes it illegible.
    entries = list(zip((boxes * scale).tolist(), labels, colours))[::-1]
    for (x1, y1, x2, y2), _, colour in entries:
        # Inside the picture with the width of the line.
        x1, y1 = max(x1, 1), max(y1, 1)
        x2, y2 = max(x1 + 1, min(x2, size[0] - 2)), max(y1 + 1, min(y2, size[1] - 2))
        draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="black", width=line + 2)
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=line)
    for (x1, y1, _, _), label, colour in entries:
        left, top, right, bottom = draw.textbbox((0, 0), label, font=letters)
        x = min(max(x1, 0), max(size[0] - right - 5, 0))
        y = max(y1 - (bottom - top) - 6, 0)
        draw.rectangle((x, y, x + right - left + 5, y + bottom - top + 5), fill=colour)
        draw.text((x + 3 - left, y + 2 - top), label, font=letters, fill="black")
    return picture


def _truth(image: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    objects = objects_of(image)
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in objects]
    classes = torch.tensor([a["category_id"] for a in objects], dtype=torch.int64)
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), classes


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def font(weight: float = 1.0) -> ImageFont.FreeTypeFont:
    """What pictures are labelled in; ``weight`` as of :func:`draw_boxes`."""
    # matplotlib brings a font file, so that the pictures look alike everywhere.
    return ImageFont.truetype(
        f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans-Bold.ttf", round(_FONT_SIZE * weight)
    )
