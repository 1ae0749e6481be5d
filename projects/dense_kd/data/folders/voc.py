"""Reads datasets in the format of Pascal VOC."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from ..build import DatasetError
from .finding import ELSEWHERE, ImageFinder
from .problems import Problems
from .records import Annotations, Layout, Place, RawImage, RawObject
from .tree import Tree, normalized, stem
from .values import number, read_lines
from .voc_xml import VOCFile, XMLError, read_voc_file

_MAX_LIST = 256 * 2**20


def read_voc(layout: Layout, tree: Tree, problems: Problems) -> Annotations:
    """All images and boxes of a Pascal VOC dataset.

    As detectron2 reads it: coordinates count pixels from 1 and include the last one, and objects
    marked ``difficult`` are objects as others are. An image is the one named as its XML file,
    else the ``filename`` in it. Classes are the names of all objects, sorted.

    Args:
        layout: with a folder of XML files as ``annotations`` of each place.
        tree: where images are looked for that no place names.
        problems: where files and objects that cannot be used are recorded.

    Raises:
        DatasetError: a list of images cannot be read, or no object has a name.
    """
    parts: dict[str, list[RawImage]] = {}
    for part, places in layout.parts.items():
        found = [_images(place, part, layout, tree, problems) for place in places]
        parts[part] = [image for images in found for image in images]
    _note_unlisted(layout, parts, problems)
    names = {o.label for part in parts.values() for image in part for o in image.objects}
    return Annotations(sorted(names), parts)


def _images(
    place: Place, part: str, layout: Layout, tree: Tree, problems: Problems
) -> list[RawImage]:
    assert place.annotations is not None
    folder = place.annotations
    own = tree if tree.root in (folder, *folder.parents) else Tree(folder)
    every = {*layout.annotations}
    below = [f for f in own.folders.values() if _nearest(f.path, every) == folder]
    files = _by_stem([f.path / name for f in below for name in f.named(".xml")], problems)
    if place.listing is not None:
        names = _listed(place.listing, files, problems)
    else:
        names = sorted(files)
    finder = ImageFinder(
        Tree(place.images) if place.images else tree,
        names,
        near=place.images or folder,
        part=part,
        parts=[*layout.parts],
        others=[] if place.images else layout.annotations,
        key=stem,
    )
    if place.listing is None:
        # An image without a file is not known to be empty.
        for image in finder.images():
            if stem(image.name) not in files:
                problems.add("dropped", "image", "without annotation file", image)
    images = []
    for name in names:
        path = files[name]
        try:
            content = read_voc_file(path)
        except XMLError as error:
            problems.add("dropped", "image", "annotation file unreadable", path, "", f"it {error}")
            continue
        file = _image_file(name, content, finder)
        if os.path.isfile(file) and finder.is_elsewhere(file, name):
            problems.add("repaired", "image", ELSEWHERE, file, "", f"named by {path.name}")
        width, height = map(number, content.size)
        size = (width, height) if width is not None and height is not None else None
        objects = _objects(content, path, problems)
        unread = len(content.objects) - len(objects)
        images.append(RawImage(file, path, objects, size, unread=unread))
    return images


def _nearest(path: Path, folders: Collection[Path]) -> Path | None:
    """The innermost of some folders that a path is or lies in."""
    return next((each for each in (path, *path.parents) if each in folders), None)


def _by_stem(paths: list[Path], problems: Problems) -> dict[str, Path]:
    """The files by what their images are named as; those that share it are recorded."""
    shared = Counter(stem(path.name) for path in paths)
    for path in paths:
        if shared[stem(path.name)] > 1:
            reason = "annotations of one name in several folders"
            problems.add("dropped", "file", reason, path)
    return {stem(path.name): path for path in paths if shared[stem(path.name)] == 1}


def _note_unlisted(layout: Layout, parts: Mapping[str, list[RawImage]], problems: Problems) -> None:
    """Files that no list names are left out, as the lists say; their number is noted."""
    used = {image.source for part in parts.values() for image in part}
    used |= {layout.root / problem.file for problem in problems}
    places = [place for part in layout.parts.values() for place in part]
    folders = {place.annotations for place in places if place.listing}
    for folder in sorted(path for path in folders if path is not None):
        left = sorted(set(folder.glob("*.xml")) - used)
        if left:
            detail = f"{len(left)}, as {left[0].name}"
            problems.add("noted", "file", "annotations that no list names", folder, "", detail)


def _listed(listing: Path, files: Mapping[str, Path], problems: Problems) -> list[str]:
    """The stems of the annotation files that a list names."""
    names: dict[str, None] = {}
    for line, text in read_lines(listing, _MAX_LIST):
        text = normalized(text)
        # Lists of one class have a second column, which says whether the image shows it.
        first = text.rsplit(None, 1)[0] if text.rsplit(None, 1)[-1] in ("-1", "0", "1") else text
        found = next((n for n in (text, stem(text), first) if n in files), None)
        if found is None:
            problems.add(
                "dropped", "image", "listed, but without annotation file", listing,
                f"line {line}", text,
            )  # fmt: skip
        else:
            names[found] = None
    if not names:
        raise DatasetError(f"{listing} names no image that has an annotation file; expected the "
                           "name of one in each line, without its suffix")  # fmt: skip
    return list(names)


def _image_file(name: str, content: VOCFile, finder: ImageFinder) -> Path:
    found = finder.find(name)
    given = content.filename and content.filename.replace("\\", "/").rsplit("/", 1)[-1]
    if len(found) > 1:  # as 1.jpg and 1.png
        return next((path for path in found if path.name == given), found[0])
    if found:
        return found[0]
    other = finder.find(stem(given)) if given else []
    return other[0] if other else finder.folder / (given or f"{name}.jpg")


def _objects(content: VOCFile, path: Path, problems: Problems) -> list[RawObject]:
    objects = []
    for index, element in enumerate(content.objects, start=1):
        item = f"object {index}"
        corners = [number(text) for text in element.corners or ()]
        box = [value for value in corners if value is not None]
        if element.name is None:
            problems.add("dropped", "box", "without a name", path, item)
        elif len(box) != 4:
            found = element.corners if element.corners else "no bndbox"
            problems.add("dropped", "box", "without four finite coordinates", path, item, found)
        else:
            x1, y1, x2, y2 = box
            # Equal corners are a click without a drag, and not a box of one pixel.
            low = (x1 - 1, y1 - 1) if x2 > x1 and y2 > y1 else (x1, y1)
            objects.append(RawObject(element.name, (*low, x2, y2), item))
    return objects
