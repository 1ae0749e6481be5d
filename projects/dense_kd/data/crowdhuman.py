"""CrowdHuman: photographs of crowds (Shao and others, arXiv:1805.00123, 2018), from its own files.

A line of an ``.odgt`` file is the JSON of an image::

    {"ID": "284193,faa9000f2678b5e", "gtboxes": [
        {"tag": "person", "fbox": [x, y, w, h], "vbox": ..., "hbox": ..., "extra": {"ignore": 0}},
        {"tag": "mask", "fbox": ...}]}

A box is ``fbox``, the whole person, in pixels; it may reach beyond the image. What is tagged
"mask", or has ``extra.ignore`` 1, is a region to ignore: it becomes an annotation with ``iscrowd``
1, and detections in it count neither way, by their IoF with it
(:class:`dense_kd.evaluation.CrowdHumanEvaluator`).

In training there is no such rule: detectron2's DatasetMapper drops these annotations, so that no
detector is taught a person there, and locations in a region are background, unless they are a
person's. As far as is known PGD's table was trained so: the paper says nothing of such regions, its
code builds on mmdetection, whose assigners leave them alone unless they are told otherwise
(``ignore_iof_thr`` is -1), and neither do the masks of the released PGD look at them. No option
keeps these locations out of the losses: AutoAssign has no label there that could be ignored.

The dataset is for research, and asked for at https://www.crowdhuman.org. Its zip files are unpacked
to ``crowdhuman/Images`` in $DETECTRON2_DATASETS (or ``datasets``), beside
``annotation_train.odgt`` and ``annotation_val.odgt``.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from .build import DatasetError, dataset_root
from .folders.images import UnreadableImageError, read_header
from .folders.problems import shortened
from .folders.values import number as number_of

__all__ = ["CLASSES", "SPLITS", "load_crowdhuman", "register_all_crowdhuman"]

CLASSES = ("person",)
SPLITS = {"train": 15000, "val": 4370}
"""{part: number of its images}; the annotations of the test images were not published."""
_TAGS = ("person", "mask")
_LISTED = 5


def default_crowdhuman_root() -> str:
    """Where it is: `crowdhuman` in $DETECTRON2_DATASETS, or in `datasets`."""
    return dataset_root("crowdhuman")


def register_all_crowdhuman(root: str | None = None) -> None:
    """Register ``crowdhuman_train`` and ``crowdhuman_val``; files are read when one is loaded.

    Args:
        root: of the dataset; None is :func:`default_crowdhuman_root`.
    """
    root = default_crowdhuman_root() if root is None else root
    for split in SPLITS:
        name = f"crowdhuman_{split}"
        if name in DatasetCatalog:
            continue
        odgt, images = os.path.join(root, f"annotation_{split}.odgt"), os.path.join(root, "Images")
        DatasetCatalog.register(name, functools.partial(load_crowdhuman, odgt, images))
        MetadataCatalog.get(name).set(
            odgt_file=odgt,
            image_root=images,
            evaluator_type="crowdhuman",
            thing_classes=list(CLASSES),
        )


def load_crowdhuman(odgt: str, image_root: str) -> list[dict[str, Any]]:
    """The images of an ``.odgt`` file in detectron2's standard format.

    Args:
        odgt: the file.
        image_root: folder of ``<ID>.jpg``.

    Returns:
        A dict for each image, in the order of the file, with ``image_id`` the ID. ``bbox`` is
        XYWH_ABS, in pixels, and may reach beyond the image. Boxes without area are left out.

    Raises:
        DatasetError: the file is missing or a line is none of CrowdHuman's, or images are missing
            or unreadable; the message has file and line.
    """
    if not os.path.isfile(odgt):
        raise DatasetError(
            f"{odgt} does not exist; expected the annotations of CrowdHuman, see "
            "dense_kd.data.crowdhuman"
        )
    images, unreadable = [], []
    seen: dict[str, int] = {}
    for number, record in _lines(odgt):
        place = f"{odgt}, line {number}"
        if record["ID"] in seen:
            raise DatasetError(f"{place}: the ID {record['ID']!r} is that of line "
                               f"{seen[record['ID']]}; expected each image once")  # fmt: skip
        seen[record["ID"]] = number
        file = Path(image_root, f"{record['ID']}.jpg")
        try:
            width, height = read_header(file).size
        except UnreadableImageError as error:
            unreadable.append(f"{file} (line {number}) {error}")
            continue
        annotations = [_annotation(box, f"{place}, box {i}") for i, box in
                       enumerate(record["gtboxes"])]  # fmt: skip
        images.append(
            {
                "file_name": str(file),
                "image_id": record["ID"],
                "width": width,
                "height": height,
                "annotations": [each for each in annotations if each is not None],
            }
        )
    if unreadable:
        more = "" if len(unreadable) <= _LISTED else f", and {len(unreadable) - _LISTED} more"
        raise DatasetError(
            f"{odgt}: {len(unreadable)} of its {len(seen)} images cannot be read: "
            f"{'; '.join(unreadable[:_LISTED])}{more}. Unpack all zip files of CrowdHuman's images "
            f"into {image_root}"
        )
    if not images:
        raise DatasetError(f"{odgt} is empty; expected a line for each image")
    return images


def _lines(odgt: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(odgt, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise DatasetError(
                    f"{odgt}, line {number}: it is no JSON ({error}); the file may have been cut "
                    "off, fetch it again"
                ) from None
            if (
                not isinstance(record, dict)
                or not isinstance(record.get("ID"), str)
                or not isinstance(record.get("gtboxes"), list)
            ):
                raise DatasetError(
                    f"{odgt}, line {number}: expected an ID and gtboxes, got {str(record)[:80]}"
                )
            yield number, record


def _annotation(box: Any, place: str) -> dict[str, Any] | None:
    """A person or a region to ignore; None for a box without area."""
    if not isinstance(box, dict) or box.get("tag") not in _TAGS:
        tag = shortened(box.get("tag") if isinstance(box, dict) else box)
        raise DatasetError(f"{place}: the tag {tag} is unknown; expected one of {_TAGS}")
    values = box.get("fbox")
    if (
        not isinstance(values, list)
        or len(values) != 4
        or not all(number_of(v) is not None and not isinstance(v, str) for v in values)
    ):
        raise DatasetError(
            f"{place}: fbox={shortened(values)}: expected [x, y, width, height] in pixels"
        )
    extra = box.get("extra") or {}
    ignore = extra.get("ignore", 0) if isinstance(extra, dict) else None
    if ignore not in (0, 1):
        raise DatasetError(f"{place}: extra={shortened(extra)}: expected its ignore to be 0 or 1")
    ignored = box["tag"] == "mask" or ignore == 1
    x, y, width, height = map(float, values)
    if width <= 0 or height <= 0:
        return None
    return {
        "bbox": [x, y, width, height],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "iscrowd": int(ignored),
    }


register_all_crowdhuman()
