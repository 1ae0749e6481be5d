"""BCCD: photographs of blood cells, registered as ``bccd_train``, ``bccd_val`` and ``bccd_test``.

364 images of 640 x 480 pixels with 4,886 boxes of three classes (Cheng Gan and others, 2018, MIT
licence, https://github.com/Shenggan/BCCD_Dataset). ``dense-kd data bccd`` fetches them, see
:mod:`.bccd_install`.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from .build import DatasetError, dataset_root

CLASSES = ("Platelets", "RBC", "WBC")
SPLITS = {"train": 205, "val": 87, "test": 72}
"""{part: number of its images}, as the dataset divides them."""

JSON_FOLDER = ".coco"
"""Beside its XML files; hidden, so that the folder is of one format to who looks into it."""


def default_bccd_root() -> str:
    """Where it is: `bccd` in $DETECTRON2_DATASETS, or in `datasets`."""
    return dataset_root("bccd")


def register_all_bccd(root: str | None = None) -> None:
    """Register the three parts; the files are read when one is loaded, and may come later.

    Args:
        root: of the dataset; None is :func:`default_bccd_root`.
    """
    root = default_bccd_root() if root is None else root
    for split in SPLITS:
        name = f"bccd_{split}"
        if name in DatasetCatalog:
            continue
        json_file = os.path.join(root, JSON_FOLDER, f"{split}.json")
        DatasetCatalog.register(name, functools.partial(_load, name, json_file, root))
        MetadataCatalog.get(name).set(
            json_file=json_file,
            image_root=root,
            evaluator_type="coco",
            thing_classes=list(CLASSES),
            thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(CLASSES))},
        )


def _load(name: str, json_file: str, root: str) -> list[dict[str, Any]]:
    if not os.path.isfile(json_file):
        raise DatasetError(
            f"the dataset {name!r} has no {json_file}; expected what `dense-kd data bccd` makes"
        )
    return load_coco_json(json_file, root, name)


register_all_bccd()
