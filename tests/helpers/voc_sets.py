"""Small datasets in Pascal VOC's own layout, registered with detectron2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.data.datasets import register_pascal_voc


class VOCObject(NamedTuple):
    """An object as its XML has it: the box counts pixels from 1, and holds both corners."""

    name: str
    box: tuple[int, int, int, int]
    difficult: bool = False


def register_voc(
    name: str,
    folder: Path,
    images: Sequence[Sequence[VOCObject]],
    classes: Sequence[str] = ("cat", "dog"),
    year: int = 2007,
) -> None:
    """Write the annotations of images of 64 x 48 pixels, and register them; no image is written.

    Images are named 000000, 000001, ...; detectron2 loads no dataset of a single one.
    """
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
    for index, objects in enumerate(images):
        text = "".join(map(_object, objects))
        path = folder / "Annotations" / f"{index:06d}.xml"
        path.write_text(f"<annotation>{size}{text}</annotation>")
    names = "".join(f"{index:06d}\n" for index in range(len(images)))
    (folder / "ImageSets/Main/test.txt").write_text(names)
    register_pascal_voc(name, str(folder), "test", year, list(classes))


def _object(each: VOCObject) -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), each.box)
    box = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners)
    return (
        f"<object><name>{each.name}</name><pose>Left</pose><truncated>0</truncated>"
        f"<difficult>{int(each.difficult)}</difficult><bndbox>{box}</bndbox></object>"
    )
