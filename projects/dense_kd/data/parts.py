"""A part of a dataset's labels: the images that keep them, and the rest."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ..options import check_counts, check_within
from .build import detection_dataset

__all__ = ["labelled_part", "rest_of_images"]


def labelled_part(
    names: str | Sequence[str], *, share: float, seed: int = 0
) -> list[dict[str, Any]]:
    """The images that keep their labels where only a share of them is to have some.

    The images are shuffled by Python's ``random.Random(seed)``, in the order of their file names,
    and the first round(share * their number) of them, but at least one, are taken: so the same
    seed gives the same images everywhere, and those of a smaller share are among those of a larger.

    Args:
        names: of registered datasets; images without objects count, too.
        share: of the images, between 0 and 1.
        seed: of the draw.

    Returns:
        dicts in detectron2's standard dataset format.

    Raises:
        DatasetError: see :func:`detection_dataset`.
        ValueError: there is no such share or seed.
    """
    return _divided(names, share, seed)[0]


def rest_of_images(
    names: str | Sequence[str], *, share: float, seed: int = 0
) -> list[dict[str, Any]]:
    """The images that :func:`labelled_part` leaves, without their annotations.

    Args:
        names, share, seed: as of that.
    """
    rest = _divided(names, share, seed)[1]
    return [{k: v for k, v in image.items() if k != "annotations"} for image in rest]


def _divided(
    names: str | Sequence[str], share: float, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    check_within(share=share)
    check_counts(at_least=0, seed=seed)
    images = detection_dataset(names, filter_empty=False)
    order = sorted(range(len(images)), key=lambda index: str(images[index]["file_name"]))
    random.Random(seed).shuffle(order)
    count = min(max(1, round(share * len(images))), len(images) - 1)
    first = set(order[:count])
    divided: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for index, image in enumerate(images):
        divided[index not in first].append(image)
    return divided
