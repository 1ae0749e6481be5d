"""Reads datasets with YOLO's text labels."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ..build import DatasetError
from .boxes import seem_corners
from .images import SUFFIXES
from .listing import listed
from .problems import Problems, shortened
from .records import Annotations, Layout, Place, RawImage, RawObject
from .tree import Tree, stem
from .values import number, read_lines, whole
from .yolo_classes import CLASS_FILES, note_other_names
from .yolo_lines import LineReader

_MAX_LABELS = 64 * 2**20
_MAX_LIST = 1024 * 2**20
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")
_SLACK = 0.01
"""Of an image, by which a box may stick out without being one of another kind."""
_FAR = 2.0
"""A number beyond this is no part of an image, but pixels."""


def label_folder(images: Path) -> Path:
    """Where the labels of a folder of images are: ``labels`` for the last ``images`` in its path.

    Beside the images if the path has none, or there is no such folder.

    Args:
        images: an absolute path.
    """
    names = [name.lower() for name in images.parts]
    if "images" in names:
        index = len(names) - 1 - names[::-1].index("images")
        folder = Path(*images.parts[:index], "labels", *images.parts[index + 1 :])
        if os.path.isdir(folder):
            return folder
    beside = images.parent / "labels"
    return beside if os.path.isdir(beside) and images.name.lower() != "labels" else images


def read_yolo(layout: Layout, problems: Problems) -> Annotations:
    """All images and boxes of a dataset with YOLO's labels.

    An image without a label file, or with an empty one, shows no object, which is noted. Boxes are
    parts of the image as it is seen, turned by its EXIF orientation. What a line may hold is said
    by :class:`~dense_kd.data.folders.yolo_lines.LineReader`; of a polygon the box is taken.

    Args:
        layout: with the names of the classes.
        problems: where lines and files that cannot be used are recorded.

    Raises:
        DatasetError: a class has no name, a list of images cannot be read, polygons are surely
            boxes with key points, or boxes are surely written as corners.
    """
    assert layout.classes is not None
    parts: dict[str, list[RawImage]] = {}
    used: set[Path] = set()
    lines = LineReader(layout.keypoints)
    labels = _LabelFiles()
    for part, places in layout.parts.items():
        parts[part] = []
        for place in places:
            for file in _image_files(place, problems):
                path = labels.find(file, place)
                used.add(path)
                image = _image(file, path, layout, lines, problems)
                if image is not None:
                    parts[part].append(image)
        _check_corners(part, layout, parts[part])
    lines.check(str(layout.root))
    note_other_names(layout, {path.parent for path in used}, problems)
    # A list may leave images out, and then their labels have none.
    every = [place for places in layout.parts.values() for place in places]
    if all(p.listing is None and p.images is not None and os.path.isdir(p.images) for p in every):
        _drop_orphans(used, problems)
    return Annotations(layout.classes, parts)


class _LabelFiles:
    """Finds label files by the names of images, in whatever way accents and suffix are written."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[str]]] = {}

    def find(self, image: Path, place: Place) -> Path:
        """The label file of an image, or where it would be."""
        if place.annotations is None:
            return self._in(label_folder(image.parent), image)
        if place.images is not None and place.images in image.parents:
            below = image.parent.relative_to(place.images)
            mirrored = self._in(place.annotations / below, image)
            if os.path.isfile(mirrored):
                return mirrored
        return self._in(place.annotations, image)

    def _in(self, folder: Path, image: Path) -> Path:
        if folder not in self._folders:
            known = self._folders[folder] = defaultdict(list)
            for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
                if name.lower().endswith(".txt"):
                    known[stem(name)].append(name)
        usual = f"{image.stem}.txt"
        names = self._folders[folder].get(stem(image.name), [usual])
        return folder / (usual if usual in names else names[0])


def _image_files(place: Place, problems: Problems) -> list[Path]:
    path = place.images
    assert path is not None
    if os.path.isdir(path):
        tree = Tree(path)
        found = [f.path / name for f in tree.folders.values() for name in f.images]
        if place.listing is None:
            return found
        # The folder's own name tells it apart in lists that have longer paths.
        names = {f"{path.name}/{file.relative_to(path).as_posix()}": file for file in found}
        chosen = listed(place.listing, names, problems)
        return [file for name, file in names.items() if name in chosen]
    files = []
    for _, text in read_lines(path, _MAX_LIST):
        text = text.replace("\\", "/")
        if Path(text).suffix.lower() in SUFFIXES:
            files.append(Path(os.path.normpath(path.parent / text)))
    if not files:
        raise DatasetError(
            f"{path} names no image; expected a path in each line, relative to its folder, as in "
            "./images/train/1.jpg"
        )
    return files


def _image(
    file: Path, path: Path, layout: Layout, reader: LineReader, problems: Problems
) -> RawImage | None:
    """An image with the objects of its label file; None, and recorded, if there is no telling."""
    if not os.path.lexists(path):
        if os.path.isfile(file):
            problems.add("noted", "image", "without a label file and taken as empty", file)
        return RawImage(file, path)
    try:
        lines = read_lines(path, _MAX_LABELS)
    except DatasetError as error:
        problems.add("dropped", "image", "with unreadable labels", path, "", str(error))
        return None
    if not lines:
        problems.add("noted", "image", "with an empty label file", file)
    objects = _objects(lines, path, layout, reader, problems)
    return RawImage(file, path, objects, unread=len(lines) - len(objects))


def _objects(
    lines: list[tuple[int, str]],
    path: Path,
    layout: Layout,
    reader: LineReader,
    problems: Problems,
) -> list[RawObject]:
    classes = layout.classes or []
    objects = []
    for line, text in lines:
        item = f"line {line}"
        if _has_decimal_commas(text):
            reason = "with decimal commas, where points are expected"
            problems.add("dropped", "box", reason, path, item, text)
            continue
        fields = text.replace(",", " ").split()
        values = [number(field) for field in fields]
        index = whole(fields[0]) if fields else None
        box = reader.box([value for value in values[1:] if value is not None])
        if index is None or None in values or box is None:
            problems.add("dropped", "box", f"not {reader.expected}", path, item, text)
        elif not 0 <= index < len(classes):
            raise DatasetError(
                f"{path}, {item}: class {index}, but {layout.classes_source} names "
                f"{len(classes)} classes, 0 to {len(classes) - 1} ({shortened(classes, 60)}); add "
                "its name, or mend the labels"
            )
        elif max(map(abs, box)) > _FAR:
            problems.add(
                "dropped", "box", "not in parts of the image (from 0 to 1)", path, item, text
            )
        else:
            objects.append(RawObject(classes[index], box, item, relative=True))
    return objects


def _has_decimal_commas(text: str) -> bool:
    """Whether a line is of numbers such as 0,5, and not one with commas between them."""
    fields = text.split()
    return "." not in text and len(fields) > 4 and any(map(_DECIMAL_COMMA.fullmatch, fields))


def _check_corners(part: str, layout: Layout, images: Iterable[RawImage]) -> None:
    """Raise DatasetError where lines surely have corners, and not a centre and a size."""
    boxes = [each.box for image in images for each in image.objects]
    boxes = [box for box in boxes if box[2] > box[0] and box[3] > box[1]]
    written = [
        (((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), (x1, y1, x2, y2), (1.0, 1.0))
        for x1, y1, x2, y2 in boxes
    ]
    if seem_corners(written, slack=_SLACK):
        raise DatasetError(
            f"{layout.root}: the labels of the part {part!r} seem to be the corners x1, y1, x2, "
            "y2; YOLO's are the centre x, y, the width and the height, in parts of the image. "
            "Convert them"
        )


def _drop_orphans(used: set[Path], problems: Problems) -> None:
    """Record label files without an image."""
    for folder in sorted({path.parent for path in used}):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            path, lower = folder / name, name.lower()
            other = lower in CLASS_FILES or lower.startswith((".", "readme"))
            if lower.endswith(".txt") and not other and path not in used and path.is_file():
                problems.add("dropped", "file", "labels without an image", path)
