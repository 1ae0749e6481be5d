"""Batches that are drawn: of any size, with as many boxes and classes as wanted."""

from __future__ import annotations

import math
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig

from ..data.unlabelled import UNLABELLED
from ..detectors.base.dense import DenseDetector
from ..engine.checks.tree import select
from ..unlabelled import labelled_images

COCO_SIZE = (800, 1344)
"""(height, width) to which most images of COCO are padded, with a short edge of 800 pixels."""

COCO_BOXES = 7
"""Objects of an image of COCO: 860,001 in 118,287 images."""

_SMALLEST = 16.0
_SEED = 0


def synthetic_batch(
    images: int, size: tuple[int, int], boxes: int, classes: int, channels: int
) -> list[dict[str, Any]]:
    """Images of noise as a DatasetMapper makes them; the same ones for the same arguments.

    Sides of boxes are spread evenly over their logarithms, from 16 pixels (or half the image) to
    the whole image, and they lie anywhere in it.

    Args:
        images: N.
        size: (height, width) in pixels.
        boxes: of each image.
        classes: K, of which the classes of the boxes are drawn.
        channels: of an image.
    """
    generator = torch.Generator().manual_seed(_SEED)
    return [_image(index, size, boxes, classes, channels, generator) for index in range(images)]


def drawn_batch(
    cfg: DictConfig, student: DenseDetector, images: int, size: tuple[int, int], boxes: int
) -> list[dict[str, Any]]:
    """A :func:`synthetic_batch` for a student; with images without labels as many as the config has
    for each labelled one, rounded, but one at least.

    Args:
        cfg: of the distillation.
        student: whose classes and channels are drawn.
        images: N, those with labels.
        size: (height, width) in pixels.
        boxes: of each image with labels.
    """
    number = number_without_labels(cfg, images)
    batch = synthetic_batch(
        images + number, size, boxes, student.num_classes, student.image_input.num_channels
    )
    for image in batch[images:]:
        del image["instances"]
        image[UNLABELLED] = True
    return batch


def number_without_labels(cfg: DictConfig, images: int) -> int:
    """How many come into a batch with ``images`` labelled ones."""
    number = select(cfg, "dataloader.unlabelled.total_batch_size")
    if number is None:
        return 0
    return max(round(images * number / cfg.dataloader.train.total_batch_size), 1)


def _image(
    index: int,
    size: tuple[int, int],
    boxes: int,
    classes: int,
    channels: int,
    generator: torch.Generator,
) -> dict[str, Any]:
    height, width = size
    whole = torch.tensor([width, height], dtype=torch.float32)
    smallest = torch.full((2,), _SMALLEST).minimum(whole / 2)
    share = torch.rand(boxes, 2, generator=generator)
    sides = smallest * (whole / smallest) ** share  # (boxes, 2)
    low = torch.rand(boxes, 2, generator=generator) * (whole - sides)
    instances = Instances(
        size,
        gt_boxes=Boxes(torch.cat((low, low + sides), dim=1)),
        gt_classes=torch.randint(0, classes, (boxes,), generator=generator),
    )
    shape = (channels, height, width)
    return {
        "image": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        "instances": instances,
        "height": height,
        "width": width,
        "file_name": f"drawn_{index}",
    }


def with_labels(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the student would be trained on without a teacher."""
    return [batch[index] for index in labelled_images(batch)]


def batch_facts(batch: list[dict[str, Any]]) -> dict[str, Any]:
    """{"images", "height", "width", "boxes"} of the labelled images: the largest sides, and the
    mean number of boxes."""
    batch = with_labels(batch)
    shapes = [image["image"].shape[-2:] for image in batch]
    boxes = math.fsum(len(image["instances"]) for image in batch) / len(batch)
    return {
        "images": len(batch),
        "height": max(height for height, _ in shapes),
        "width": max(width for _, width in shapes),
        "boxes": boxes,
    }
