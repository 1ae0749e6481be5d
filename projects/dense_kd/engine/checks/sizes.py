"""Whether images are still there once they are resized."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import detectron2.data.transforms as T
from omegaconf import DictConfig

from .teacher_cache import resized, size_of
from .tree import target_of

_KNOWN = (T.RandomFlip, T.Resize, T.ResizeShortestEdge)


def vanishing(images: Any, augmentations: Any) -> Iterator[str]:
    """A sentence, if some images are so thin that resizing leaves them a side of 0 pixels.

    Args:
        images: dataset dicts; those that do not say their sizes are not judged.
        augmentations: LazyCalls of a mapper; only what comes before one that crops is judged.
    """
    if not isinstance(images, Sequence) or not isinstance(augmentations, Sequence):
        return
    known = [*itertools.takewhile(_is_known, augmentations)]
    sized = [image for image in images if isinstance(image, Mapping) and size_of(image)]
    made = resized([size_of(image) for image in sized], known)
    gone = [image for image, size in zip(sized, made) if size is not None and 0 in size]
    if gone:
        first = gone[0]
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        yield (
            f"the image {first.get('file_name')} of {first['width']} x {first['height']} pixels"
            f"{more} would be resized to a side of 0 pixels; leave such images out, or let the "
            "long edge be longer"
        )


def _is_known(node: Any) -> bool:
    return isinstance(node, DictConfig) and target_of(node) in _KNOWN
