"""Annotations and results with nothing but what metrics of boxes are made of.

Libraries differ in what else they take: hotcoco refuses a ``date_captured`` that is a number or a
negative id of an image, and pycocotools counts an object whose id is 0 as never found.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pycocotools.coco import COCO

from ..arguments import is_number
from ..options import is_list
from .errors import EvaluationError
from .names import Names

if TYPE_CHECKING:
    from typing import TypeGuard  # of Python 3.10

_LARGEST = 2**63 - 1


class BoxesAlone:
    """The boxes of a dataset. Objects are numbered from 1 on, and images and categories in the
    order of their ids, where one of these is not a whole number from 0 on.

    Attributes:
        dataset: in COCO's format, with the entries that metrics of boxes are made of.
    """

    def __init__(self, truth: COCO):
        """
        Args:
            truth: the annotations. An object without ``area`` has that of its box, one without
                ``iscrowd`` is no crowd, and those of other images or categories than are listed
                count nowhere, as in pycocotools.

        Raises:
            EvaluationError: an object has no box, or something else than numbers.
        """
        images, categories, objects = (
            truth.dataset.get(part, ()) for part in ("images", "categories", "annotations")
        )
        self._images = _numbers(image["id"] for image in images)
        self._categories = _numbers(each["id"] for each in categories)
        self._named = {"images": images, "categories": categories}
        known = (
            each
            for each in objects
            if each["image_id"] in self._images and each["category_id"] in self._categories
        )
        self.dataset: dict[str, Any] = {
            "images": [{"id": number} for number in self._images.values()],
            "categories": [
                {"id": self._categories[each["id"]], "name": str(each.get("name", each["id"]))}
                for each in categories
            ],
            "annotations": [
                {
                    "id": number,
                    "image_id": self._images[each["image_id"]],
                    "category_id": self._categories[each["category_id"]],
                    **_shape(each),
                }
                for number, each in enumerate(known, start=1)
            ],
        }

    @functools.cached_property
    def _names(self) -> Names:
        """Of the annotations; asked for where results name something, as those of a run do not."""
        return Names(self._named)

    def results(self, results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Results with the numbers of ``dataset``.

        Args:
            results: in COCO's format for results. One with ``file_name`` or ``category`` is of the
                image and category of these names, see :class:`.names.Names`, and its ids are
                those of whoever numbered.

        Returns:
            the same ones where nothing is changed: there may be a million.

        Raises:
            EvaluationError: one is of another image or category than there are, or has no box or
                no score.
        """
        results = [
            self._names.result(each) if "file_name" in each or "category" in each else each
            for each in results
        ]
        for each in results:
            self._check(each)
        if self._as_they_were and all(len(each) == 4 for each in results):
            return list(results)
        return [
            {
                "image_id": self._images[each["image_id"]],
                "category_id": self._categories[each["category_id"]],
                "bbox": each["bbox"],
                "score": each["score"],
            }
            for each in results
        ]

    @property
    def _as_they_were(self) -> bool:
        ids = (*self._images.items(), *self._categories.items())
        return all(before == number for before, number in ids)

    def _check(self, result: Mapping[str, Any]) -> None:
        for key, known in (("image_id", self._images), ("category_id", self._categories)):
            if result.get(key) not in known:
                raise EvaluationError(
                    f"{key}={result.get(key)!r} is not in the annotations; they are of another "
                    "dataset"
                )
        box, score = result.get("bbox"), result.get("score")
        if not _is_box(box) or not _is_number(score):
            raise EvaluationError(
                f"a detection has bbox={box!r} and score={score!r}; expected four numbers (x, y, "
                "width, height), and a number"
            )

    def parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Those of ``COCOeval.params`` that name images or categories, by their numbers."""
        numbers = {"imgIds": self._images, "catIds": self._categories}
        return {
            name: sorted(numbers[name][each] for each in value) if name in numbers else value
            for name, value in parameters.items()
        }


def _numbers(ids: Iterable[Hashable]) -> dict[Hashable, int]:
    """The ids themselves, or the numbers from 1 on in their order."""
    known = list(dict.fromkeys(ids))
    if all(isinstance(each, int) and 0 <= each <= _LARGEST for each in known):
        return {each: each for each in known if isinstance(each, int)}
    known.sort(key=lambda each: (type(each).__name__, each))
    return {each: number for number, each in enumerate(known, start=1)}


def _shape(annotation: Mapping[str, Any]) -> dict[str, Any]:
    box, area, crowd = annotation.get("bbox"), annotation.get("area"), annotation.get("iscrowd")
    plain = (area is None or is_number(area)) and (crowd is None or isinstance(crowd, (int, float)))
    if not _is_box(box) or not plain:
        raise EvaluationError(
            f"the object {annotation.get('id')!r} of the image {annotation['image_id']!r} has "
            f"bbox={box!r}, area={area!r} and iscrowd={crowd!r}; expected four numbers (x, y, "
            "width, height), a number and 0 or 1; the last two may be left out"
        )
    return {
        "bbox": box,
        "area": float(box[2] * box[3]) if area is None else area,
        "iscrowd": int(bool(crowd)),
    }


def _is_box(value: Any) -> TypeGuard[Sequence[float]]:
    a_list = type(value) is list or is_list(value)  # the first is quick: there may be a million
    return a_list and len(value) == 4 and all(map(_is_number, value))


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) is float or is_number(value)
