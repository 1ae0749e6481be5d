"""The files that name the classes which YOLO's labels only number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..build import DatasetError
from .description import names_in
from .problems import Problems, shortened
from .records import Layout
from .values import read_text

CLASS_FILES = ("classes.txt", "obj.names", "names.txt", "_darknet.labels", "labels.txt")
"""Names of files that hold the names of the classes, a line each."""

_YAML = (".yaml", ".yml")
_MAX_BYTES = 2**20


@dataclass(frozen=True)
class ClassList:
    """What one file says of the classes."""

    path: Path
    names: list[str]
    keypoints: tuple[int, int] | None
    """How many points follow a box, and the numbers of each, where the file says so."""


def named_classes(root: Path, labels: Iterable[Path]) -> ClassList:
    """The classes of all labels, by every file in their folders and in those above them.

    labelImg writes such a file into each folder, in the order of that session, so one of them does
    not say what the numbers in another folder mean. A list may be the beginning of another.

    Args:
        root: folder of the dataset.
        labels: the folders with label files.

    Raises:
        DatasetError: no file names classes, or several do, in different ways.
    """
    near = _near(root, labels)
    found = [each for each in map(_read, _class_files(near)) if each is not None]
    if not found:
        raise DatasetError(
            f"{root} has YOLO labels, but nothing that names the classes: looked for data.yaml "
            f"with names: [...] and for {', '.join(CLASS_FILES)} in "
            f"{', '.join(map(str, near[:4]))}; write classes.txt with one name in each line, that "
            "of class 0 first"
        )
    longest = max(found, key=lambda each: len(each.names))
    for each in found:
        if _contradict(each.names, longest.names):
            pairs = enumerate(zip(longest.names, each.names))
            index, (one, other) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
            raise DatasetError(
                f"{longest.path} and {each.path} name the classes in different ways: class {index} "
                f"is {shortened(one, 40)} in one and {shortened(other, 40)} in the other; expected "
                "one order for all labels. Remove the file that does not hold; where each holds "
                "for the labels beside it, renumber those of one folder"
            )
    with_points = [each for each in found if each.keypoints is not None]
    if len({each.keypoints for each in with_points}) > 1:
        raise DatasetError(
            f"{' and '.join(str(each.path) for each in with_points)} have different kpt_shape; "
            "expected one for all labels. Remove the file that does not hold"
        )
    points = with_points[0].keypoints if with_points else None
    return ClassList(longest.path, longest.names, points)


def note_other_names(layout: Layout, labels: Iterable[Path], problems: Problems) -> None:
    """Note the files near labels that name other classes than the description of the dataset.

    Args:
        layout: with the names of the classes, and the file that has them.
        labels: the folders with label files.
        problems: where it is noted.
    """
    assert layout.classes is not None
    for path in _class_files(_near(layout.root, labels)):
        try:
            each = _read(path)
        except DatasetError as error:
            problems.add(
                "noted", "file", "names of classes that cannot be read", path, "", str(error)
            )
            continue
        if each is not None and _contradict(each.names, layout.classes):
            reason = "names other classes than the YAML file, whose names are taken"
            problems.add("noted", "file", reason, path, "", each.names)


def _near(root: Path, labels: Iterable[Path]) -> list[Path]:
    """The folder of a dataset, those of labels, and all between them."""
    folders = [root]
    for folder in sorted({*labels}):
        between = [path for path in folder.parents if root in path.parents]
        folders += [folder, *between]
    return [path for path in dict.fromkeys(folders) if os.path.isdir(path)]


def _class_files(folders: Iterable[Path]) -> list[Path]:
    """The files that may name classes."""
    found = []
    for folder in folders:
        files = [path for path in sorted(folder.iterdir()) if path.is_file()]
        found += [path for name in CLASS_FILES for path in files if path.name.lower() == name]
        found += [path for path in files if path.suffix.lower() in _YAML]
    return found


def _read(path: Path) -> ClassList | None:
    """What a file says; None for a YAML file that lists no classes."""
    if path.suffix.lower() in _YAML:
        listed, points = names_in(path)
        return None if listed is None else ClassList(path, listed, points)
    names = [line.strip() for line in read_text(path, _MAX_BYTES).split("\n")]
    while names and not names[-1]:
        names.pop()
    return ClassList(path, names, None)


def _contradict(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a number is of different classes in two lists."""
    return any(name != other for name, other in zip(names, others))
