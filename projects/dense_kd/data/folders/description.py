"""Reads a YAML file that says where a dataset's images, annotations and classes are.

That of YOLO, ``data.yaml``::

    path: cells            # what follows is relative to it; optional
    train: images/train    # a folder, a text file that names images, or a list of these
    val: images/val        # optional, as is test
    names: [RBC, WBC]      # or {0: RBC, 1: WBC}
    kpt_shape: [17, 3]     # optional: after its box, a line has 17 key points of 3 numbers

or the same with annotations of any layout::

    name: cells            # optional; otherwise that of the folder
    path: .
    layout: voc            # coco, voc or yolo; optional, where the annotations show it
    train:
      images: JPEGImages           # optional for coco and voc, which can be searched for
      annotations: Annotations     # a .json file, a folder of .xml files, or one of .txt files
      list: ImageSets/Main/train.txt   # names of the images that belong to it; optional
    classes: [RBC, WBC]    # optional but for yolo; also a text file with a line for each
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..build import DatasetError
from .problems import shortened
from .records import PARTS, Layout, Place
from .values import read_lines, read_text, whole

_KEYS = ("name", "path", "layout", *PARTS, "classes", "names", "nc", "kpt_shape")
_PLACE_KEYS = ("images", "annotations", "list")
_MAX_BYTES = 4 * 2**20
_NEEDS: dict[str, Callable[[Place], bool]] = {
    "coco": lambda place: place.annotations is not None and os.path.isfile(place.annotations),
    "voc": lambda place: place.annotations is not None and os.path.isdir(place.annotations),
    "yolo": lambda place: (
        place.images is not None and (place.annotations is None or os.path.isdir(place.annotations))
    ),
}


def is_description(path: Path) -> bool:
    """Whether a YAML file in the folder of a dataset describes one."""
    content = _mapping_in(path)
    if "train" not in content:
        return False
    return "names" in content or "classes" in content or isinstance(content["train"], Mapping)


def names_in(path: Path) -> tuple[list[str] | None, tuple[int, int] | None]:
    """The classes that a YAML file near labels lists, and the key points; None if it lists none.

    Raises:
        DatasetError: it has a list that is none of names.
    """
    content = _mapping_in(path)
    if not isinstance(content.get("classes", content.get("names")), (list, Mapping, str)):
        return None, None  # settings of a model may have a number of them
    description = _Description(path, content)
    return description.classes(), description.keypoints()


def _mapping_in(path: Path) -> Mapping[Any, Any]:
    """What a YAML file in the folder of a dataset holds; nothing, if it is of something else."""
    try:
        content = yaml.safe_load(read_text(path, _MAX_BYTES))
    except (DatasetError, yaml.YAMLError, RecursionError, ValueError):
        return {}
    return content if isinstance(content, Mapping) else {}


def read_description(path: Path) -> Layout:
    """Read such a file, see the top of this module.

    Args:
        path: the file; absolute.

    Raises:
        DatasetError: it is no such file, has other keys, or names what is not there.
    """
    try:
        content = yaml.safe_load(read_text(path, _MAX_BYTES))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path} is no valid YAML: {error}") from error
    if not isinstance(content, Mapping) or "train" not in content:
        found = f"the keys {list(content)[:10]}" if isinstance(content, Mapping) else "no keys"
        raise DatasetError(
            f"{path} describes no dataset: expected train: and, where there are, val:, test: and "
            f"classes:, got {found}"
        )
    return _Description(path, content).layout()


class _Description:
    def __init__(self, path: Path, content: Mapping[Any, Any]):
        self.path, self.content = path, content
        self._read_as: dict[bool, str] = {}
        self._check_keys()
        base = content.get("path") or "."
        if not isinstance(base, str):
            raise DatasetError(f"{path}: path={shortened(base)}: expected a folder")
        root = _absolute(path.parent / os.path.expanduser(base))
        # Where `path` names the folder on the machine that wrote the file.
        self.root = root if os.path.isdir(root) else path.parent

    def layout(self) -> Layout:
        parts = {part: self._places(part) for part in PARTS if self.content.get(part) is not None}
        kind = self._kind([place for places in parts.values() for place in places])
        classes = self.classes()
        if kind == "yolo" and not classes:
            raise DatasetError(
                f"{self.path} names no classes, which YOLO's labels only number; add classes: "
                "[name of class 0, name of class 1, ...]"
            )
        name = self.content.get("name", self.root.name)
        if not isinstance(name, str) or not name.strip():
            raise DatasetError(f"{self.path}: name={shortened(name)}: expected a text")
        points = self.keypoints()
        if points and kind != "yolo":
            raise DatasetError(f"{self.path}: kpt_shape is of YOLO's labels, and these are {kind}; "
                               "remove it")  # fmt: skip
        return Layout(name, self.root, kind, parts, classes, str(self.path), points)

    def _check_keys(self) -> None:
        if any(isinstance(self.content.get(part), Mapping) for part in PARTS):
            _refuse_unknown(self.content, _KEYS, str(self.path))
        # Otherwise it is one of YOLO's, which have many keys for other purposes.

    def _places(self, part: str) -> list[Place]:
        given = self.content[part]
        if not isinstance(given, Mapping):
            paths = given if isinstance(given, list) and given else [given]
            return [Place(images=self._find(value, part)) for value in paths]
        _refuse_unknown(given, _PLACE_KEYS, f"{self.path}, {part}")
        places = {key: self._find(given[key], f"{part}.{key}") for key in given}
        if "annotations" not in places and "images" not in places:
            raise DatasetError(f"{self.path}, {part}: expected annotations: FILE or FOLDER")
        return [Place(places.get("annotations"), places.get("images"), places.get("list"))]

    def _find(self, value: object, key: str) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise DatasetError(f"{self.path}: {key}={shortened(value)}: expected a path")
        text = os.path.expanduser(value.replace("\\", "/"))
        bases = (self.root, self.path.parent)
        literal = [_absolute(base / text) for base in bases]
        # Roboflow writes "../train/images" for a folder beside the file.
        inner = re.sub(r"^(\.\./)+", "", text)
        beside = [_absolute(base / inner) for base in bases] if inner != text else []
        found = [next(filter(os.path.exists, paths), None) for paths in (literal, beside)]
        if found[0] and found[1] and not os.path.samefile(found[0], found[1]):
            raise DatasetError(
                f"{self.path}: {key}={shortened(value)} may be {found[0]}, as it is written, or "
                f"{found[1]}, as Roboflow means it; expected one of them. Write the path of the "
                "one that is meant in full"
            )
        path = found[0] or found[1]
        if path is None:
            listed = ", ".join(dict.fromkeys(str(path)[:300] for path in (*literal, *beside)))
            raise DatasetError(
                f"{self.path}: {key}={shortened(value)}: no such file or folder; tried {listed}"
            )
        if beside:
            self._check_reading(key, path, as_written=path == found[0])
        return path

    def _check_reading(self, key: str, path: Path, as_written: bool) -> None:
        """Refuse paths with ``../`` of which some are there as written, others only without it."""
        self._read_as[as_written] = f"{key} ({path})"
        if len(self._read_as) > 1:
            raise DatasetError(
                f"{self.path}: {self._read_as[True]} is where the file says, outside of its "
                f"folder, but {self._read_as[False]} only beside the file, as Roboflow means it; "
                "expected all of them in one way. Write the paths of those that are meant in full"
            )

    def _kind(self, places: list[Place]) -> str:
        kinds = {_kind_of(place) for place in places}
        kind = self.content.get("layout", next(iter(kinds)) if len(kinds) == 1 else None)
        if not isinstance(kind, str) or kind not in _NEEDS:
            shown = {str(kind) for kind in kinds if kind is not None}
            why = f"layout={shortened(kind)}" if kind else f"annotations show {sorted(shown)}"
            raise DatasetError(
                f"{self.path}: {why}; expected layout: coco (annotations: a .json file), voc (a "
                "folder of .xml files) or yolo (one of .txt files), the same for all parts"
            )
        for place in places:
            if not _NEEDS[kind](place):
                raise DatasetError(
                    f"{self.path}: {_shown(place)} is not what {kind} needs; expected "
                    "annotations: a .json file for coco, a folder for voc, and images: a folder "
                    "for yolo"
                )
        return kind

    def classes(self) -> list[str] | None:
        """Their names, where the file has them."""
        key = "classes" if "classes" in self.content else "names"
        given = self.content.get(key)
        if given is None:
            return None
        if isinstance(given, str):
            given = [text for _, text in read_lines(self._find(given, key), _MAX_BYTES)]
        if isinstance(given, Mapping):
            numbers = {whole(index): name for index, name in given.items()}
            if sorted(numbers, key=str) != sorted(range(len(given)), key=str):
                raise DatasetError(
                    f"{self.path}: {key} has the indices {shortened(list(given))}; expected 0 to "
                    f"{len(given) - 1}, each once"
                )
            given = [numbers[index] for index in range(len(given))]
        if not isinstance(given, list):
            raise DatasetError(f"{self.path}: {key}={shortened(given)}: expected a list of names")
        for name in given:
            if isinstance(name, bool) or not isinstance(name, (str, int, float)):
                raise DatasetError(
                    f"{self.path}: {key} has {shortened(name)}, which YAML does not read as text; "
                    "write it in quotes"
                )
        number = self.content.get("nc")
        if number is not None and number != len(given):
            raise DatasetError(
                f"{self.path}: nc={shortened(number)}, but {key} has {len(given)} names; make them "
                "agree"
            )
        return [str(name).strip() for name in given]

    def keypoints(self) -> tuple[int, int] | None:
        """(number, numbers of each) of the points that follow a box, where the file says so."""
        given = self.content.get("kpt_shape")
        if given is None:
            return None
        shape = [whole(value) for value in given] if isinstance(given, list) else []
        if len(shape) == 2:
            number, size = shape
            if number is not None and number > 0 and size in (2, 3):
                return number, size
        raise DatasetError(
            f"{self.path}: kpt_shape={shortened(given)}: expected the number of key points and the "
            "numbers of each, 2 or 3, as in [17, 3]"
        )


def _kind_of(place: Place) -> str | None:
    """What the annotations of a place show."""
    path = place.annotations
    if path is None:
        return "yolo"
    if not os.path.isdir(path):
        return "coco" if path.suffix.lower() == ".json" else None
    suffixes = {os.path.splitext(name)[1].lower() for name in os.listdir(path)}
    kinds = {".xml": "voc", ".txt": "yolo"}
    found = [kind for suffix, kind in kinds.items() if suffix in suffixes]
    return found[0] if len(found) == 1 else None


def _shown(place: Place) -> str:
    given = {"images": place.images, "annotations": place.annotations}
    return ", ".join(f"{key}: {path}" for key, path in given.items() if path is not None)


def _refuse_unknown(given: Mapping[Any, Any], known: tuple[str, ...], place: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise DatasetError(f"{place}: no such key {shortened(key, 40)}; {hint}")


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))
