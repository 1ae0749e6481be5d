"""Where a dataset lies, and what its annotation files say of an image, before it is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

PARTS: tuple[str, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Place:
    """Where the images of one part are, or some of them, and what is said of them."""

    annotations: Path | None = None
    """coco: a JSON file. voc: a folder of XML files. yolo: a folder of text files; None for beside
    the images, or where ``images`` in the path is ``labels``."""
    images: Path | None = None
    """A folder; for yolo also a text file that names images. None: to be found (coco, voc)."""
    listing: Path | None = None
    """A text file with the names of the images of this part, a line each; None for all."""


@dataclass(frozen=True)
class Layout:
    """A recognised dataset."""

    name: str
    root: Path
    kind: str
    """"coco", "voc" or "yolo"."""
    parts: dict[str, list[Place]]
    """Of "train", "val" and "test" those that there are."""
    classes: list[str] | None = None
    """In order, where something else than the annotations names them."""
    classes_source: str = ""
    """What names them, for messages."""
    keypoints: tuple[int, int] | None = None
    """yolo: how many points follow a box, and the numbers of each, where a YAML file says so."""

    @property
    def annotations(self) -> list[Path]:
        """The files or folders of all places that name any."""
        places = [place for part in self.parts.values() for place in part]
        return [place.annotations for place in places if place.annotations is not None]


@dataclass
class RawObject:
    """One box as it is written."""

    label: str
    """Name of the class."""
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels, or in parts of the image's width and height."""
    item: str
    """Its place in the file, as "line 3"."""
    relative: bool = False
    """Whether the box is in parts of the image."""
    crowd: bool = False
    area: float | None = None
    """Of the object in pixels, where the file has one."""


@dataclass
class RawImage:
    """One image as its annotations describe it."""

    file: Path
    source: Path
    """The file with the annotations; the image itself where there is none."""
    objects: list[RawObject] = field(default_factory=list)
    size: tuple[float, float] | None = None
    """(width, height) that the annotations give."""
    image_id: int | None = None
    """Where the file has one."""
    unread: int = 0
    """How many boxes the file has of it that could not be read, beside ``objects``."""


@dataclass
class Annotations:
    """All that the annotation files of a dataset hold."""

    classes: list[str]
    parts: dict[str, list[RawImage]]
