"""Which images are wider than high, so that those of a batch need little padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .build import DatasetError
from .folders.images import UnreadableImageError, read_header


def wide_images(images: Iterable[Mapping[str, Any]]) -> bytes:
    """1 for each image that is wider than high, 0 for the others.

    Args:
        images: in detectron2's standard dataset format; the file tells the size of an image whose
            dict does not.

    Raises:
        DatasetError: neither does.
    """
    return bytes(width > height for width, height in map(_size, images))


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    if "width" in image and "height" in image:
        return image["width"], image["height"]
    file = image.get("file_name")
    try:
        return read_header(Path(str(file))).size
    except UnreadableImageError as error:
        raise DatasetError(
            f"the training dataset does not tell the size of the image {file}, which {error}; "
            "expected 'width' and 'height', or dataloader.train.aspect_ratio_grouping=False"
        ) from error
