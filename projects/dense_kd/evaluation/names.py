"""Results that name their image and category, and so need no numbers of the annotations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ..data.folders.listing import base_of, folders_of, in_one_folder
from .errors import EvaluationError

__all__ = ["Names"]

_SHOWN = 3


class Names:
    """The images and categories of annotations by their names.

    A name of an image means another one if one is the end of the other, as in lists of images
    (:func:`dense_kd.data.folders.listing.listed`): ``photos/cam1/001.png`` is ``cam1/001.png`` and
    not ``cam2/001.png``. Of several, the one with more folders in common is meant.
    """

    def __init__(self, dataset: Mapping[str, Sequence[Mapping[str, Any]]]):
        """
        Args:
            dataset: in COCO's format; of it ``images`` and ``categories`` are looked at.
        """
        self._images: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        for each in dataset.get("images", ()):
            if isinstance(each.get("file_name"), str):
                self._images[base_of(each["file_name"])].append((each["file_name"], each["id"]))
        self._categories: dict[str, list[Any]] = defaultdict(list)
        for each in dataset.get("categories", ()):
            self._categories[str(each.get("name"))].append(each["id"])
        self._named: dict[str, Any] = {}  # ids of images, by what results call them
        self._callers: dict[Any, str] = {}

    def image_id(self, name: str) -> Any:
        """The id of the image that ``name`` means.

        Raises:
            EvaluationError: it is none, or could be several, or another name means the same image.
        """
        if name not in self._named:
            self._named[name] = self._found(name)
        return self._named[name]

    def category_id(self, name: str, given: Any = None) -> Any:
        """The id of the category that is called so; of several, ``given``.

        Raises:
            EvaluationError: there is none, or there are several and ``given`` is none of them.
        """
        ids = self._categories.get(name, [])
        if len(ids) == 1:
            return ids[0]
        if given in ids:
            return given
        known = _some(sorted(self._categories))
        what = f"{len(ids)} categories are called so" if ids else f"they have {known}"
        raise EvaluationError(
            f"category={name!r} (category_id={given!r}) is not clear from the annotations: {what}; "
            "expected detections of their categories. Give the annotations of the classes that "
            "the detector was trained on"
        )

    def result(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        """A detection with the ids of what it names; itself if it names nothing or has them.

        Args:
            result: in COCO's format for results, and with ``file_name`` and ``category`` if it
                names them, as :meth:`dense_kd.prediction.Prediction.to_coco` does.

        Raises:
            EvaluationError: as of the methods above.
        """
        changed = {}
        name, category = result.get("file_name"), result.get("category")
        if isinstance(name, str):
            changed["image_id"] = self.image_id(name)
        if isinstance(category, str):
            changed["category_id"] = self.category_id(category, result.get("category_id"))
        same = all(result.get(key) == value for key, value in changed.items())
        return result if same else {**result, **changed}

    def _found(self, name: str) -> Any:
        near = [each for each in self._images[base_of(name)] if in_one_folder(each[0], name)]
        own = len(folders_of(name))
        common = [min(len(folders_of(each)), own) for each, _ in near]
        found = [each for each, folders in zip(near, common) if folders == max(common)]
        if len(found) != 1:
            raise EvaluationError(self._unclear(name, [each for each, _ in found]))
        ((_, key),) = found
        other = self._callers.setdefault(key, name)
        if other != name:
            raise EvaluationError(
                f"{other} and {name} would both be the image {found[0][0]} of the annotations, "
                "whose names do not tell them apart; give annotations with the folders of their "
                "images"
            )
        return key

    def _unclear(self, name: str, found: list[str]) -> str:
        if found:
            return (
                f"{name} is not clear from the annotations: it could be {_some(found)}; detect in "
                "a folder above those, so that its name has a folder"
            )
        known = [each for images in self._images.values() for each, _ in images]
        there = f"they have {_some(known)}" if known else "they have no file_name"
        return (
            f"{name} is not in the annotations: {there}; they are of another dataset, or of a part "
            "of the images. Detect in their images alone; a detection that has a file_name is of "
            "the image of that name, whatever its image_id"
        )


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
