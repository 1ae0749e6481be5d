"""From what annotations say to images and boxes that are there."""

from __future__ import annotations

import os
from collections import Counter
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
        records = {part: self._records(images) for part, images in parts.items()}
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
        """Leave out a test set without boxes, and training images that are evaluated on.

        Those are left out with their copies. Where all are evaluated on with the same boxes, one
        set is meant to be both, and stays. Other images that are in several parts are noted, and
        so are classes that are evaluated on and not learnt.

        Args:
            records: the images of each part; changed.

        Raises:
            DatasetError: a part but "test" has no box, or nothing is left to learn from.
        """
        if "test" in records and not _have_boxes(records["test"]):
            reason = "without any box, so there is no test set"
            detail = f"{len(records['test'])} images"
            self.problems.add("noted", "part", reason, "test", "", detail)
            del records["test"]
        self._leave_out_evaluated(records)
        for part, found in records.items():
            if not _have_boxes(found):
                why = "to learn from" if part == "train" else "to evaluate with"
                raise DatasetError(
                    f"{self.root}: the {len(found)} images of the part {part!r} have no box {why}; "
                    f"{self.problems.summary()}"
                )
        self._note_unlearnt(records)
        owner: dict[str, tuple[str, str]] = {}
        for part in PARTS:
            for record in records.get(part, ()):
                file = record["file_name"]
                first, other = owner.setdefault(self._content(file), (part, file))
                if first != part:
                    reason = f"in {first} and in {part}"
                    self.problems.add("noted", "image", reason, file, "", self._same(file, other))

    def _note_unlearnt(self, records: dict[str, list[dict[str, Any]]]) -> None:
        """Note classes without a box to learn from, whose AP counts all the same."""
        counts = {
            part: Counter(
                a["category_id"]
                for record in found
                for a in record["annotations"]
                if not a["iscrowd"]
            )
            for part, found in records.items()
        }
        for name, index in self._index.items():
            evaluated = {part: n[index] for part, n in counts.items() if n[index]}
            if evaluated and "train" not in evaluated:
                listed = ", ".join(f"{n} in {part}" for part, n in evaluated.items())
                reason = "without a box to learn from, though its AP counts"
                self.problems.add("noted", "class", reason, self.root, name, f"{listed}")

    def _leave_out_evaluated(self, records: dict[str, list[dict[str, Any]]]) -> None:
        evaluated: dict[str, tuple[str, dict[str, Any]]] = {}
        for part in ("val", "test"):
            for record in records.get(part, ()):
                evaluated.setdefault(self._content(record["file_name"]), (part, record))
        train = records["train"]
        common = [evaluated.get(self._content(record["file_name"])) for record in train]
        if train and all(common):
            if all(
                each and _boxes(record) == _boxes(each[1]) for record, each in zip(train, common)
            ):
                return
            parts = " and ".join(sorted({each[0] for each in common if each}))
            raise DatasetError(
                f"{self.root}: all {len(train)} images of the part 'train' are in {parts}, too, "
                "and with other boxes; expected others to learn from. Are the folders those that "
                "are meant?"
            )
        records["train"] = [record for record, each in zip(train, common) if each is None]
        for record, each in zip(train, common):
            if each is not None:
                reason = f"in train and in {each[0]}, left out of train"
                detail = self._same(record["file_name"], each[1]["file_name"])
                self.problems.add("dropped", "image", reason, record["file_name"], "", detail)

    def _content(self, file: str) -> str:
        """The same for all copies of an image."""
        return self.copies.get(file, file)

    def _same(self, file: str, other: str) -> str:
        return "" if other == file else f"the same as {self.problems.name(other)}"

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
                known.unread += image.unread
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
        """Give images ids where a part lacks them, over all parts, and sort them by their ids.

        Those below 0 are none: the evaluation takes no such.
        """
        last = 0
        for images in parts.values():
            images.sort(key=lambda image: self.name(image.file))
            ids = {image.image_id for image in images}
            if len(ids) < len(images) or any(key is None or key < 0 for key in ids):
                for image in images:
                    last += 1
                    image.image_id = last
            images.sort(key=lambda image: image.image_id or 0)

    def _records(self, images: list[RawImage]) -> list[dict[str, Any]]:
        """Those that can be used. An image of whose boxes none can be is not known to be empty."""
        records = []
        for image in images:
            if image.file not in self._headers:
                continue
            record = self._record(image)
            count = len(image.objects) + image.unread
            if count and not record["annotations"]:
                detail = f"{count} in {self.problems.name(image.source)}"
                reason = "of whose boxes none can be used"
                self.problems.add("dropped", "image", reason, image.file, "", detail)
                continue
            records.append(record)
        return records

    def _record(self, image: RawImage) -> dict[str, Any]:
        header = self._headers[image.file]
        return {
            "file_name": str(image.file),
            "height": header.size[1],
            "width": header.size[0],
            "image_id": image.image_id,
            "annotations": cleaned_objects(image, header, self._index, self.problems),
        }


def _have_boxes(records: list[dict[str, Any]]) -> bool:
    return any(not a["iscrowd"] for record in records for a in record["annotations"])


def _boxes(record: dict[str, Any]) -> list[tuple[Any, ...]]:
    return sorted((a["category_id"], a["iscrowd"], *a["bbox"]) for a in record["annotations"])
