"""Tiny datasets as people have them: COCO, Pascal VOC and YOLO, in folders of a test."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dense_kd.data.folders.tree import part_of

NAMES = ("disc", "square")
SIZE = (40, 30)

OF_SYSTEMS = ("@eaDir", "#recycle", "$RECYCLE.BIN", ".Trash-1000", "__MACOSX", "lost+found")
"""Folders of thumbnails, of what was deleted and the like, in which no image is anybody's data."""

Objects = Sequence[tuple[str, Sequence[float]]]
"""(name of the class, x1, y1, x2, y2 in pixels) of one image."""


def write_image(
    path: Path, size: tuple[int, int] = SIZE, *, mode: str = "RGB", orientation: int = 1
) -> Path:
    """An image with the content of its part and name; `size` is (width, height) of the stored
    pixels."""
    seed = zlib.crc32(os.fsencode("/".join([*filter(part_of, path.parts[-3:-1]), path.name])))
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, **({"exif": exif.tobytes()} if orientation != 1 else {}))
    return path


def scenes(count: int) -> dict[str, list[tuple[str, list[float]]]]:
    """Images with two objects each, by their stems."""
    return {
        f"{i:03d}": [("disc", [2 + i % 5, 3, 14 + i % 5, 17]), ("square", [18, 4, 30, 25])]
        for i in range(count)
    }


def write_coco(
    file: Path,
    images: Mapping[str, Objects],
    folder: Path,
    *,
    names: Iterable[str] = NAMES,
    suffix: str = ".png",
    edit: Any = None,
) -> Path:
    """A JSON file, and its images in `folder`; `edit` may change the content before."""
    ids = {name: i for i, name in enumerate(names, start=1)}
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for name, i in ids.items()],
    }
    for index, (stem, objects) in enumerate(images.items(), start=1):
        write_image(folder / f"{stem}{suffix}")
        entry = {"id": index, "file_name": f"{stem}{suffix}", "width": SIZE[0], "height": SIZE[1]}
        content["images"].append(entry)
        for name, (x1, y1, x2, y2) in objects:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": index,
                    "category_id": ids[name],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1) / 2,
                    "iscrowd": 0,
                }
            )
    if edit:
        edit(content)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def voc_xml(
    name: str, objects: Iterable[tuple[str, Sequence[Any]]], size: Sequence[Any] = SIZE
) -> str:
    """An annotation file; its coordinates count from 1, so x1 and y1 are one more."""
    lines = [f"<annotation><filename>{name}</filename><size><width>{size[0]}</width>"]
    lines += [f"<height>{size[1]}</height><depth>3</depth></size>"]
    for label, box in objects:
        shifted = [v + 1 if isinstance(v, (int, float)) and i < 2 else v for i, v in enumerate(box)]
        corners = zip(("xmin", "ymin", "xmax", "ymax"), shifted)
        inner = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
        lines += [f"<object><name>{label}</name><difficult>0</difficult>"]
        lines += [f"<bndbox>{inner}</bndbox></object>"]
    return "\n".join([*lines, "</annotation>"])


def write_voc(
    root: Path, images: Mapping[str, Objects], lists: Mapping[str, Iterable[str]] | None = None
) -> Path:
    """Annotations/, JPEGImages/ and, with `lists`, ImageSets/Main/."""
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    for stem, objects in images.items():
        write_image(root / "JPEGImages" / f"{stem}.jpg")
        (root / "Annotations" / f"{stem}.xml").write_text(voc_xml(f"{stem}.jpg", objects))
    for part, stems in (lists or {}).items():
        (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets/Main" / f"{part}.txt").write_text("".join(f"{s}\n" for s in stems))
    return root


def yolo_lines(objects: Objects, names: Sequence[str] = NAMES) -> str:
    width, height = SIZE
    return "".join(
        f"{names.index(name)} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} "
        f"{(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"
        for name, (x1, y1, x2, y2) in objects
    )


def write_yolo(
    images: Path, labels: Path, content: Mapping[str, Objects], *, suffix: str = ".png"
) -> None:
    labels.mkdir(parents=True, exist_ok=True)
    for stem, objects in content.items():
        write_image(images / f"{stem}{suffix}")
        (labels / f"{stem}.txt").write_text(yolo_lines(objects))


def boxes_of(records: Iterable[dict[str, Any]]) -> dict[str, list[tuple[int, list[float]]]]:
    """(class, x1, y1, x2, y2) of each image, by its stem."""
    found = {}
    for record in records:
        boxes = [(a["category_id"], a["bbox"]) for a in record["annotations"]]
        corners = [(label, [x, y, x + w, y + h]) for label, (x, y, w, h) in boxes]
        found[Path(record["file_name"]).stem] = corners
    return found
