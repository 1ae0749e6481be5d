"""Reads COCO JSON files."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..build import DatasetError
from .boxes import seem_corners
from .coco_categories import common_classes, read_categories, without_heading
from .finding import ELSEWHERE, ImageFinder
from .listing import listed
from .problems import Problems, shortened
from .records import Annotations, Layout, Place, RawImage, RawObject
from .tree import Tree
from .values import flag, number, read_text, whole

_MAX_BYTES = 4 * 2**30
_ENOUGH = 10  # boxes, to judge by what all have in common


def read_coco(layout: Layout, tree: Tree, problems: Problems) -> Annotations:
    """All images and boxes of a COCO dataset.

    Ids of images stay, where all of a file are different whole numbers from 0 on.

    Args:
        layout: with a JSON file as ``annotations`` of each place.
        tree: where images are looked for that no place names.
        problems: where entries that cannot be used are recorded.

    Raises:
        DatasetError: a file is no COCO annotation file, or boxes are of a category it lacks.
    """
    places = [place for part in layout.parts.values() for place in part]
    tests = {place.annotations for place in layout.parts.get("test", ())}
    contents = {
        path: _load(path, may_lack_annotations=path in tests)
        for path in (place.annotations for place in places)
        if path is not None
    }
    categories = {path: read_categories(content, path) for path, content in contents.items()}
    categories = without_heading(categories, contents, problems)
    classes = common_classes(categories, problems)
    parts: dict[str, list[RawImage]] = {}
    for part, part_places in layout.parts.items():
        parts[part] = []
        for place in part_places:
            path = place.annotations
            assert path is not None
            reader = _File(path, contents[path], categories[path], problems)
            parts[part] += reader.images(place, tree, part, layout)
    return Annotations(classes, parts)


class _File:
    def __init__(
        self, path: Path, content: Mapping[str, Any], names: dict[int, str], problems: Problems
    ):
        self.path, self.content, self.names, self.problems = path, content, names, problems
        self._unread: Counter[object] = Counter()

    def images(self, place: Place, tree: Tree, part: str, layout: Layout) -> list[RawImage]:
        objects = self._objects()
        entries = self._entries(place)
        search = Tree(place.images) if place.images else tree
        names = [name for _, name, _ in entries]
        finder = ImageFinder(
            search, names, near=place.images or self.path.parent, part=part,
            parts=[*layout.parts],
            others=[] if place.images else [path.parent for path in layout.annotations],
        )  # fmt: skip
        keep_ids = all(isinstance(key, int) for key, _, _ in entries)
        images = []
        for key, name, entry in entries:
            width, height = number(entry.get("width")), number(entry.get("height"))
            size = (width, height) if width is not None and height is not None else None
            found = finder.find(name)
            if found and finder.is_elsewhere(found[0], name):
                self.problems.add("repaired", "image", ELSEWHERE, found[0], "", f"named {name}")
            images.append(
                RawImage(
                    found[0] if found else finder.folder / name,
                    self.path,
                    objects.pop(key, []),
                    size,
                    whole(entry["id"]) if keep_ids else None,
                    self._unread[key],
                )
            )
        _check_units(self.path, images)
        known = {_key(e.get("id")) for e in self.content["images"] if isinstance(e, Mapping)}
        for key, left in objects.items():
            if key not in known:
                for each in left:
                    self._drop("box", "of no image in the file", each.item, f"image_id {key}")
        return images

    def _entries(self, place: Place) -> list[tuple[object, str, Mapping[str, Any]]]:
        """(key, file name, entry) of the images that can be told apart."""
        every = self.content["images"]
        chosen = None
        if place.listing:
            given = [e.get("file_name") for e in every if isinstance(e, Mapping)]
            names_ = [name for name in given if isinstance(name, str)]
            chosen = listed(place.listing, names_, self.problems)
        entries: list[tuple[object, str, Mapping[str, Any], str]] = []
        names: dict[object, set[str]] = defaultdict(set)
        for index, entry in enumerate(every):
            item = f"images[{index}]"
            if not isinstance(entry, Mapping):
                self._drop("image", "not an object with id and file_name", item, entry)
                continue
            key, name = _key(entry.get("id")), entry.get("file_name")
            if not isinstance(name, str) or not name.strip():
                self._drop("image", "without file_name", item, entry)
            elif key is None:
                self._drop("image", "without id", item, entry)
            elif chosen is None or name in chosen:
                entries.append((key, name, entry, item))
                names[key].add(name)
        kept: list[tuple[object, str, Mapping[str, Any]]] = []
        seen: set[object] = set()
        for key, name, entry, item in entries:
            if len(names[key]) > 1:
                self._drop("image", "with an id that several images have", item, entry)
            elif key not in seen:  # the same entry twice says nothing new
                seen.add(key)
                kept.append((key, name, entry))
        return kept

    def _objects(self) -> dict[object, list[RawObject]]:
        """The boxes of each image, by the key of its id."""
        objects: dict[object, list[RawObject]] = defaultdict(list)
        unknown: Counter[str] = Counter()
        for index, entry in enumerate(self.content["annotations"]):
            item = f"annotations[{index}]"
            if not isinstance(entry, Mapping):
                self._drop("box", "not an object with bbox", item, entry)
                continue
            if "id" in entry:
                item = f"annotation {shortened(entry['id'], 30)}"
            category = whole(entry.get("category_id"))
            name = self.names.get(category) if category is not None else None
            if name is None:
                unknown[shortened(entry.get("category_id"), 30)] += 1
                continue
            box = self._box(entry, item)
            if box is None:
                self._drop("box", "without a bbox of four finite numbers", item, entry.get("bbox"))
                self._unread[_key(entry.get("image_id"))] += 1
                continue
            x, y, width, height = box
            crowd = flag(entry.get("iscrowd")) or flag(entry.get("ignore"))
            objects[_key(entry.get("image_id"))].append(
                RawObject(
                    name,
                    (x, y, x + width, y + height),
                    item,
                    False,
                    crowd,
                    number(entry.get("area")),
                )  # fmt: skip
            )
        if unknown:
            listed = ", ".join(f"{key} ({n} boxes)" for key, n in unknown.most_common(5))
            known = ", ".join(f"{key} {name!r}" for key, name in list(self.names.items())[:20])
            raise DatasetError(
                f"{self.path}: boxes have a category_id that 'categories' lacks: {listed}; "
                f"expected one of {known}. Add these categories, or remove their boxes"
            )
        return objects

    def _box(self, entry: Mapping[str, Any], item: str) -> list[float] | None:
        given = entry.get("bbox")
        values = [number(v) for v in given] if isinstance(given, list) else []
        box = [v for v in values if v is not None]
        if len(values) == 4 and len(box) == 4:
            return box
        if given:
            return None
        box = _outline(entry.get("segmentation"))
        if box:
            self.problems.add(
                "repaired", "box", "bbox taken from its segmentation", self.path, item, box
            )
        return box or None

    def _drop(self, what: str, reason: str, item: str, detail: object) -> None:
        self.problems.add("dropped", what, reason, self.path, item, detail)


def _load(path: Path, may_lack_annotations: bool) -> dict[str, Any]:
    text = read_text(path, _MAX_BYTES)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path} is no valid JSON ({error}); is the file cut off, or was it edited by hand?"
        ) from error
    if not isinstance(content, dict):
        hint = "; a list is what detections are written as" if isinstance(content, list) else ""
        raise DatasetError(
            f"{path} holds {shortened(content, 40)}; expected COCO annotations: an object with "
            f"images, annotations and categories{hint}"
        )
    if may_lack_annotations:  # images of a test whose answers are kept secret
        content.setdefault("annotations", [])
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            got = shortened(content[key], 40) if key in content else f"only {list(content)[:10]}"
            raise DatasetError(f"{path}: expected a list {key!r} of COCO annotations, got {got}")
    return content


def _check_units(path: Path, images: Iterable[RawImage]) -> None:
    """Raise DatasetError where boxes are surely written in another way than COCO's."""
    boxes = [(o.box, image.size) for image in images if image.size for o in image.objects]
    boxes = [(box, size) for box, size in boxes if box[2] > box[0] and box[3] > box[1]]
    if len(boxes) < _ENOUGH:
        return
    parts = all(max(box[2:]) <= 1.01 for box, _ in boxes)
    written = [((x, y, x2 - x, y2 - y), (x, y, x2, y2), size) for (x, y, x2, y2), size in boxes]
    if parts or seem_corners(written, slack=1):
        found = "in parts of the image" if parts else "the corners x1, y1, x2, y2"
        raise DatasetError(
            f"{path}: the bboxes seem to be {found}; COCO's are x, y, width, height in pixels. "
            "Convert them"
        )


def _key(value: object) -> object:
    """An id, comparable to how others refer to it: 7 and "7" are the same."""
    number = whole(value)
    if number is not None:
        return number
    return value if isinstance(value, str) and value else None


def _outline(polygons: object) -> list[float]:
    """x, y, width, height of a list of polygons; [] if it is none."""
    values = []
    for polygon in polygons if isinstance(polygons, list) else ():
        numbers = [number(v) for v in polygon] if isinstance(polygon, list) else []
        if len(numbers) < 6 or len(numbers) % 2 or None in numbers:
            return []
        values += numbers
    xs, ys = [v or 0.0 for v in values[::2]], [v or 0.0 for v in values[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)] if xs else []
