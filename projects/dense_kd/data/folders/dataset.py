"""Reads a dataset of one's own into detectron2's format."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...options import SEED, VAL_FRACTION, check_counts, check_within
from ..build import DatasetError
from .cleaning import Cleaning
from .coco import read_coco
from .description import read_description
from .problems import Problems, shortened
from .recognition import KINDS, looks_like_coco, recognise
from .records import Annotations, Layout, Place
from .split import draw
from .tree import Tree, normalized
from .voc import read_voc
from .yolo import read_yolo


@dataclass
class OwnDataset:
    """A dataset that was recognised, read and cleaned.

    Images are dicts in detectron2's format: ``file_name`` (absolute), ``height``, ``width``,
    ``image_id`` (a whole number) and ``annotations``, each with ``bbox`` (pixels), ``bbox_mode``,
    ``category_id`` (index into ``classes``), ``iscrowd`` and ``area``. They are sorted by
    ``image_id``.
    """

    name: str
    root: Path
    layout: str
    """"coco", "voc" or "yolo"."""
    classes: list[str]
    """COCO: by category id. VOC: sorted. YOLO: by index. As they are listed, if a YAML does."""
    train: list[dict[str, Any]]
    val: list[dict[str, Any]]
    test: list[dict[str, Any]] | None
    split: str
    """A sentence: how ``train`` and ``val`` came about."""
    problems: Problems
    """All images and boxes that were left out or changed."""


def read_dataset(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    val_fraction: float = VAL_FRACTION,
    seed: int = SEED,
) -> OwnDataset:
    """Read a dataset in the format of COCO, Pascal VOC or YOLO.

    Of the images only the headers are read.

    Args:
        path: the folder of the dataset, a COCO JSON file, or a YAML file (YOLO's ``data.yaml``, or
            one of ours, see :mod:`dense_kd.data.folders.description`).
        layout: "coco", "voc" or "yolo", for a folder that holds more than one of them.
        val_fraction: of the images, in (0, 1), that are drawn from those for training where the
            dataset names no validation set.
        seed: of that draw; the defaults are those of ``dense-kd distill``.

    Raises:
        DatasetError: the layout is not recognised, or the dataset cannot be trained on.
    """
    try:
        check_within(val_fraction=val_fraction)
        check_counts(at_least=0, seed=seed)
    except ValueError as error:
        raise DatasetError(str(error)) from None
    if layout not in (None, *KINDS):
        raise DatasetError(f"layout={layout!r}: expected one of {KINDS}, or None to recognise it")
    found, tree = _recognised(Path(os.path.abspath(os.path.expanduser(path))), layout)
    problems = Problems(found.root)
    for folder in tree.left_out:
        problems.add("noted", "folder", "written by dense-kd distill, and not read", folder)
    annotations = _read(found, tree, problems)
    classes = _checked_classes(found, annotations)
    _note_alike(found.root, classes, annotations, problems)
    cleaned = Cleaning(found.root, classes, problems)
    records = cleaned.parts(annotations)
    if "val" in records:
        split = f"train and val are those of the dataset ({found.kind})"
    else:
        split = draw(records, cleaned, val_fraction, seed)
    cleaned.check_objects(records)
    return OwnDataset(
        found.name, found.root, found.kind, classes,
        records["train"], records["val"], records.get("test"), split, problems,
    )  # fmt: skip


def _recognised(path: Path, layout: str | None) -> tuple[Layout, Tree]:
    if os.path.isdir(path):  # not Path.is_dir, which raises for names that are too long
        tree = Tree(path)
        found = recognise(tree, layout)
        return found, tree
    if not os.path.exists(path):
        raise DatasetError(f"{path} does not exist; expected the folder of a dataset, a COCO "
                           "JSON file or a YAML file that describes one")  # fmt: skip
    if path.suffix.lower() in (".yaml", ".yml"):
        found = read_description(path)
    elif path.suffix.lower() == ".json" or looks_like_coco(path):
        places = {"train": [Place(annotations=path)]}
        found = Layout(path.parent.name, path.parent, "coco", places)
    else:
        raise DatasetError(f"{path} is neither a folder nor a .json or .yaml file; give the folder "
                           "of the dataset")  # fmt: skip
    if layout not in (None, found.kind):
        raise DatasetError(f"{path} is of the layout {found.kind!r}, not {layout!r}")
    return found, Tree(found.root)


def _read(layout: Layout, tree: Tree, problems: Problems) -> Annotations:
    if "train" not in layout.parts:
        raise DatasetError(
            f"{layout.root} has no training images, only {' and '.join(layout.parts)} "
            f"({layout.kind}); name them train, or in a YAML file with train: ..."
        )
    if layout.kind == "coco":
        return read_coco(layout, tree, problems)
    return read_voc(layout, tree, problems) if layout.kind == "voc" else read_yolo(layout, problems)


def _checked_classes(layout: Layout, annotations: Annotations) -> list[str]:
    classes = layout.classes or annotations.classes
    source = layout.classes_source or str(layout.root)
    if not classes:
        raise DatasetError(f"{source} has no objects with a class ({layout.kind}), so there is "
                           "nothing to learn; check the annotations")  # fmt: skip
    wrong = [name for name, count in Counter(classes).items() if count > 1 or not name]
    if wrong:
        raise DatasetError(f"{source} names the classes {shortened(classes, 300)}; expected other "
                           f"names for all of them, but {wrong[0]!r} is one")  # fmt: skip
    unknown: Counter[str] = Counter()
    example: dict[str, str] = {}
    for part in annotations.parts.values():
        for image in part:
            for each in image.objects:
                if each.label not in classes:
                    unknown[each.label] += 1
                    example.setdefault(each.label, f"{image.source}, {each.item}")
    if unknown:
        listed = ", ".join(f"{name!r} ({n} boxes)" for name, n in unknown.most_common(5))
        raise DatasetError(
            f"boxes are of classes that {source} does not name: {listed}, first in "
            f"{example[next(iter(unknown))]}; expected one of {shortened(classes, 300)}"
        )
    return classes


def _note_alike(
    root: Path, classes: list[str], annotations: Annotations, problems: Problems
) -> None:
    """Note classes whose names differ in nothing but case: they are several all the same."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[normalized(name).casefold()].append(name)
    images = [image for part in annotations.parts.values() for image in part]
    for names in (names for names in alike.values() if len(names) > 1):
        counts = Counter(o.label for image in images for o in image.objects if o.label in names)
        boxes = [(o.label, image.source) for image in images for o in image.objects]
        rarest = min(names, key=lambda name: counts[name])
        file = next((source for label, source in boxes if label == rarest), root)
        listed = " and ".join(f"{name!r} ({counts[name]} boxes)" for name in names)
        reason = "differs from another in case alone, so they are two classes"
        problems.add("noted", "class", reason, file, rarest, listed)
