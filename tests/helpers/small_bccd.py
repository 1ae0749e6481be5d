"""BCCD with six images."""

from __future__ import annotations

import io
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from dense_kd.data import bccd

NAMES = [f"BloodImage_0000{i}" for i in range(6)]
PARTS = {"train": NAMES[:3], "val": NAMES[3:5], "test": NAMES[5:], "trainval": NAMES[:5]}
OBJECT = (
    "<object><name>{name}</name><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax>"
    "<ymax>{3}</ymax></bndbox></object>"
)


def annotation(name: str) -> str:
    boxes = [("RBC", 2, 3, 20, 21), ("WBC", 5, 5, 30, 30), ("Platelets", 1, 1, 8, 9)]
    boxes += [("RBC", 7, 7, 7, 7)] if name == NAMES[0] else []  # without area, as two of BCCD
    return (
        f"<annotation><filename>{name}.jpg</filename>\n\t<path>/home/me/{name}.jpg</path>\n"
        "<size><width>40</width><height>32</height><depth>3</depth></size>"
        + "".join(OBJECT.format(*box, name=kind) for kind, *box in boxes)
        + "</annotation>"
    )


def small_bccd() -> dict[str, bytes]:
    """{name of a file: content}."""
    image = io.BytesIO()
    Image.new("RGB", (40, 32), (200, 100, 120)).save(image, "JPEG")
    return {
        **{f"Annotations/{name}.xml": annotation(name).encode() for name in NAMES},
        **{f"JPEGImages/{name}.jpg": image.getvalue() for name in NAMES},
        **{f"ImageSets/Main/{p}.txt": "\n".join(ns).encode() + b"\n" for p, ns in PARTS.items()},
    }


def register_at(root: str | None) -> None:
    for split in bccd.SPLITS:
        DatasetCatalog.remove(f"bccd_{split}")
        MetadataCatalog.remove(f"bccd_{split}")
    bccd.register_all_bccd(root)


def write(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
