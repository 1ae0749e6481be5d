"""From what annotations say to images and boxes that are there."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..build import DatasetError
from .boxes import cleaned_objects
from .duplicates import copies
from .images import Header, UnreadableImageError, read_header
from .problems import Problems
from .records import PARTS, Annotations, RawImage
from .tree import normalized

_THREADS = 8


class Cleaning:
    """Makes images in detectron2's format of what was read, and records what cannot be used."""

    def __init__(self, root: Path, classes: list[str], problems: Problems):
        """
        Args:
            root: folder of the dataset.
            classes: their names in order.
            problems: where images and boxes that are left out or changed are recorded.
        """
        self.root = root
        self.problems = problems
        self.copies: dict[str, str] = {}
        """For each file that has copies, the first of them."""
        self._index = {name: i for i, name in enumerate(classes)}
        self._headers: dict[Path, Header] = {}

    def parts(self, raw: Annotations) -> dict[str, list[dict[str, Any]]]:
        """The images of each part, sorted by their ids.

        Args:
            raw: as they are written.

        Raises:
            DatasetError: of a part but "test", no image can be used.
        """
        parts = {part: self._joined(images) for part, images in raw.parts.items()}
        self._read_headers(parts)
        self.copies = {str(a): str(b) for a, b in copies(self._headers).items()}
        self._number(parts)
        records = {
            part: [self._record(image) for image in images if image.file in self._headers]
            for part, images in parts.items()
        }
        for part, found in records.items():
            if not found and part != "test":
                tried = ", ".join(str(image.file) for image in parts[part][:3])
                looked = f"looked for {tried}" if tried else "none is named"
                raise DatasetError(
                    f"{self.root}: no image of the part {part!r} can be used, {looked}; "
                    f"{self.problems.summary()}"
                )
        return records

    def check_objects(self, records: dict[str, list[dict[str, Any]]]) -> None:
        """Leave out a test set without boxes, and note images that are in several parts.

        Args:
            records: the images of each part.

        Raises:
            DatasetError: a part but "test" has no box.
        """
        for part, found in list(records.items()):
            if any(not a["iscrowd"] for record in found for a in record["annotations"]):
                continue
            if part == "test":
                reason = "without any box, so there is no test set"
                self.problems.add("noted", "part", reason, "test", "", f"{len(found)} images")
                del records[part]
                continue
            why = "to learn from" if part == "train" else "to evaluate with"
            raise DatasetError(
                f"{self.root}: the {len(found)} images of the part {part!r} have no box {why}; "
                f"{self.problems.summary()}"
            )
        owner: dict[str, tuple[str, str]] = {}
        for part in PARTS:
            for record in records.get(part, ()):
                file = record["file_name"]
                first, other = owner.setdefault(self.copies.get(file, file), (part, file))
                if first != part:
                    same = "" if other == file else f"the same as {self.problems.name(other)}"
                    self.problems.add(
                        "noted", "image", f"in {first} and in {part}", file, detail=same
                    )

    def name(self, file: Path | str) -> str:
        """The path relative to the dataset, the same wherever the dataset lies."""
        return normalized(self.problems.name(file))

    def _joined(self, images: list[RawImage]) -> list[RawImage]:
        """Each file once, with the objects of all entries that name it."""
        first: dict[Path, RawImage] = {}
        for image in images:
            known = first.setdefault(image.file, image)
            if known is not image:
                known.objects += image.objects
                where = f"in {self.problems.name(image.source)}"
                reason = "listed twice, boxes joined"
                self.problems.add("repaired", "image", reason, image.file, "", where)
        return list(first.values())

    def _read_headers(self, parts: dict[str, list[RawImage]]) -> None:
        sources = {image.file: image.source for images in parts.values() for image in images}

        def read(file: Path) -> Header | str:
            try:
                return read_header(file)
            except UnreadableImageError as error:
                return str(error)

        with ThreadPoolExecutor(_THREADS) as pool:
            for file, result in zip(sources, pool.map(read, sources)):
                if isinstance(result, Header):
                    self._headers[file] = result
                elif os.path.lexists(file):
                    self.problems.add("dropped", "image", "unreadable", file, "", result)
                else:
                    where = f"named in {self.problems.name(sources[file])}"
                    self.problems.add("dropped", "image", "listed, but missing", file, "", where)

    def _number(self, parts: dict[str, list[RawImage]]) -> None:
        """Give images ids where a part lacks them, over all parts, and sort them by their ids."""
        last = 0
        for images in parts.values():
            images.sort(key=lambda image: self.name(image.file))
            ids = {image.image_id for image in images}
            if None in ids or len(ids) < len(images):
                for image in images:
                    last += 1
                    image.image_id = last
            images.sort(key=lambda image: image.image_id or 0)

    def _record(self, image: RawImage) -> dict[str, Any]:
        header = self._headers[image.file]
        return {
            "file_name": str(image.file),
            "height": header.size[1],
            "width": header.size[0],
            "image_id": image.image_id,
            "annotations": cleaned_objects(image, header, self._index, self.problems),
        }
