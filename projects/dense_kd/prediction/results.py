"""What a detector finds in one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from detectron2.structures import Instances

if TYPE_CHECKING:
    from PIL import Image

_LEGIBLE = 600
"""Pixels of the shorter side that a picture is enlarged towards, so that labels fit."""

_LARGE = 1600
"""Pixels of the longer side that no picture is enlarged beyond."""

_USUAL = 1000
"""Pixels of the longer side above which lines and letters grow with the picture."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The detections on one image, best first.

    Attributes:
        file_name: of the image, None if it came without one.
        image: (H, W, 3) uint8, RGB, turned as its EXIF orientation says; boxes are in its pixels.
        instances: on the CPU, with ``pred_boxes`` (D, 4), ``scores`` (D,) and ``pred_classes``
            (D,), indices of ``class_names``.
        class_names: K names.
        category_ids: K ids of the classes in the dataset that the detector was trained on.
    """

    file_name: str | None
    image: np.ndarray = field(repr=False)
    instances: Instances
    class_names: list[str] = field(repr=False)
    category_ids: list[int] = field(repr=False)

    def __len__(self) -> int:
        return len(self.instances)

    @property
    def labels(self) -> list[str]:
        """D names of classes."""
        return [self.class_names[index] for index in self.instances.pred_classes.tolist()]

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """The detections in COCO's format of results, and with names for people.

        Args:
            image_id: of the image, such as in the file of its annotations.

        Returns:
            D dicts with ``image_id``, ``file_name``, ``category_id`` (see ``category_ids``),
            ``category`` (its name), ``bbox`` (x, y, width, height in pixels) and ``score``.
        """
        found = self.instances
        boxes = found.pred_boxes.tensor.clone()  # (D, 4)
        boxes[:, 2:] -= boxes[:, :2]
        return [
            {
                "image_id": image_id,
                "file_name": self.file_name,
                "category_id": self.category_ids[index],
                "category": self.class_names[index],
                "bbox": box,
                "score": score,
            }
            for box, score, index in zip(
                boxes.tolist(), found.scores.tolist(), found.pred_classes.tolist()
            )
        ]

    def draw(self) -> Image.Image:
        """The image with boxes, classes and scores; a small one is enlarged."""
        from ..visualize.drawing import draw_boxes  # matplotlib, for its font

        found, (height, width) = self.instances, self.image.shape[:2]
        scale = max(1, min(round(_LEGIBLE / min(height, width)), _LARGE // max(height, width)))
        texts = [f"{name} {score:.2f}" for name, score in zip(self.labels, found.scores.tolist())]
        return draw_boxes(
            self.image,
            found.pred_boxes.tensor,
            texts,
            found.pred_classes,
            scale=scale,
            weight=max(1.0, max(height, width) * scale / _USUAL),
        )
