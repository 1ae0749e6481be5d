"""Writes a dataset as COCO JSON files, which detectron2 reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...checkpoint import replace_atomically
from .dataset import OwnDataset


def write_annotations(dataset: OwnDataset, folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Write ``train.json``, ``val.json`` and, if there is a test set, ``test.json``.

    The same dataset gives the same bytes. Category ids are the indices of the classes plus 1, as
    COCO's begin with 1; names of files are relative to ``dataset.root``, if they lie there.

    Args:
        dataset: what :func:`~dense_kd.data.folders.dataset.read_dataset` read.
        folder: made if it does not exist.

    Returns:
        path of the file of each part.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    written = {}
    for part, records in parts.items():
        if records is not None:
            written[part] = folder / f"{part}.json"
            _write(written[part], annotations_of(dataset, part))
    return written


def annotations_of(dataset: OwnDataset, part: str) -> dict[str, Any]:
    """What the file of a part holds.

    Args:
        dataset: see :func:`write_annotations`.
        part: "train", "val" or "test", which is there.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in getattr(dataset, part):
        file = Path(record["file_name"])
        inside = dataset.root in file.parents
        images.append(
            {
                "id": record["image_id"],
                "file_name": file.relative_to(dataset.root).as_posix() if inside else str(file),
                "height": record["height"],
                "width": record["width"],
            }
        )
        for each in record["annotations"]:
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 is none to the evaluation of COCO
                    "image_id": record["image_id"],
                    "category_id": each["category_id"] + 1,
                    "bbox": each["bbox"],
                    "area": each["area"],
                    "iscrowd": each["iscrowd"],
                }
            )
    # Categories come first: who registers the file reads no further.
    return {
        "info": {"description": f"{dataset.name}, {part}", "split": dataset.split},
        "licenses": [],
        "categories": [{"id": i, "name": n} for i, n in enumerate(dataset.classes, start=1)],
        "images": images,
        "annotations": annotations,
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    """Several processes, or a kill in the middle, never leave half a file."""
    # ASCII: names of files may hold bytes that are no Unicode, and JSON has escapes for them.
    text = json.dumps(content).encode("ascii")
    replace_atomically(str(path), lambda file: file.write(text))
