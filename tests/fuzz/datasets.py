"""Annotations of all formats: their bytes, their values, their files."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from dense_kd.data import detection_dataset, load_crowdhuman, read_dataset, register_annotations
from dense_kd.data.folders import OwnDataset
from helpers.own_datasets import scenes, write_coco, write_image, write_voc, write_yolo

from .mutations import JUNK, damaged, damaged_text, damaged_tree
from .outcomes import REPAIRED, SAME, VALUES, Case, Kind, Violation

YAML = {"path": ".", "train": "images/train", "val": "images/val", "names": ["disc", "square"]}
LISTED = {
    "name": "cells",
    "layout": "voc",
    "train": {"images": "JPEGImages", "annotations": "Annotations", "list": "train.txt"},
    "classes": ["disc", "square"],
}


@dataclass
class Shared:
    """A whole dataset, what is read of it, and which of its files are damaged."""

    root: Path
    records: Any
    files: tuple[str, ...]


def _others(count: int) -> dict[str, Any]:
    return {f"v{stem}": objects for stem, objects in scenes(count).items()}


def _coco(root: Path) -> tuple[str, ...]:
    write_coco(root / "annotations" / "instances_train.json", scenes(4), root / "train")
    write_coco(root / "annotations" / "instances_val.json", _others(2), root / "val")
    return "annotations/instances_train.json", "annotations/instances_val.json"


def _voc(root: Path) -> tuple[str, ...]:
    write_voc(root, scenes(4), {"train": ["000", "001", "002"], "val": ["003"]})
    return "Annotations/000.xml", "Annotations/003.xml", "ImageSets/Main/train.txt"


def _yolo(root: Path) -> tuple[str, ...]:
    for part, images in (("train", scenes(3)), ("val", _others(3))):
        write_yolo(root / "images" / part, root / "labels" / part, images)
    (root / "data.yaml").write_text(yaml.safe_dump(YAML))
    return "labels/train/000.txt", "labels/val/v001.txt", "data.yaml"


def _described(root: Path) -> tuple[str, ...]:
    write_voc(root, scenes(4))
    (root / "train.txt").write_text("000\n001\n002\n003\n")
    (root / "cells.yaml").write_text(yaml.safe_dump(LISTED))
    return "cells.yaml", "train.txt"


def _odgt(root: Path) -> tuple[str, ...]:
    lines = []
    for index, objects in enumerate(scenes(3).values()):
        name = f"28,{index}"
        write_image(root / "Images" / f"{name}.jpg")
        boxes: list[dict[str, Any]] = [
            {"tag": "person", "fbox": list(box), "hbox": list(box), "extra": {"ignore": i}}
            for i, (_, box) in enumerate(objects)
        ]
        lines.append({"ID": name, "gtboxes": [*boxes, {"tag": "mask", "fbox": [0, 0, 9, 9]}]})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (root / "annotation_train.odgt").write_text(text)
    return ("annotation_train.odgt",)


def _read_own(root: Path) -> OwnDataset:
    described = [*root.glob("cells.yaml")]
    return read_dataset(described[0] if described else root)


def _read_odgt(root: Path) -> Any:
    return load_crowdhuman(str(root / "annotation_train.odgt"), str(root / "Images"))


class _Logged(list):
    """Records, and what detectron2 warned of while it read them."""

    problems: Sequence[str] = ()


def _read_registered(root: Path) -> Any:
    """As the config of a run does that `dense-kd distill` wrote."""
    logger, warned = logging.getLogger("detectron2.data.datasets.coco"), _Collecting()
    logger.addHandler(warned)
    logger.setLevel(logging.WARNING)
    try:
        file = root / "annotations" / "instances_train.json"
        register_annotations("fuzz_train", file, root / "train")
        found = _Logged(detection_dataset("fuzz_train"))
        found.problems = warned.messages
        return found
    finally:
        logger.removeHandler(warned)
        DatasetCatalog.pop("fuzz_train", None)
        MetadataCatalog.pop("fuzz_train", None)


class _Collecting(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def kind(
    write: Callable[[Path], tuple[str, ...]], read: Callable[[Path], Any], share: int = 1
) -> Kind:
    """Of a dataset that ``write`` makes and ``read`` reads."""

    def prepare(folder: Path) -> Shared:
        files = write(folder)
        found = read(folder)
        assert not getattr(found, "problems", ()), "only what is damaged may be a problem"
        return Shared(folder, _records(found, folder), files)

    def run(shared: Shared, case: Case) -> str:
        root = case.folder / "data"
        shutil.copytree(shared.root, root)
        surely = _damage(root, case, shared.files)
        found = read(root)
        records = _records(found, root)
        _check(records)
        if getattr(found, "problems", ()):
            return REPAIRED
        if records == shared.records:
            return SAME
        if surely:
            raise Violation("what cannot be meant is read as something else, and nothing is said")
        return VALUES

    return Kind(run, prepare, share)


def _damage(root: Path, case: Case, files: Sequence[str]) -> bool:
    """Damage one file of a dataset; whether no file of a whole dataset could be like that."""
    rng, file = case.rng, root / case.rng.choice(files)
    how = rng.choice(("bytes", "values", "values", "values", "text", "file"))
    if how == "file":
        case.mutation, surely = _damage_file(root, case, file), False
    elif how == "bytes":
        case.mutation, data = damaged(file.read_bytes(), rng)
        file.write_bytes(data)
        surely = False
    elif how == "text" or file.suffix == ".txt":
        case.mutation, text = damaged_text(file.read_text(), rng)
        file.write_text(text, errors="surrogatepass")
        surely = False
    else:
        case.mutation, surely = _DAMAGE[file.suffix](file, rng)
    case.mutation = f"{case.mutation} of {file.name}"
    return surely


def _damage_file(root: Path, case: Case, file: Path) -> str:
    target = case.rng.choice([file, *sorted(p for p in root.rglob("*") if p.is_file())])
    what = case.rng.choice(("removed", "a folder", "a link to itself", "a pipe", "a long line"))
    target.unlink()
    if what == "a folder":
        target.mkdir()
    elif what == "a link to itself":
        target.symlink_to(target)
    elif what == "a pipe":
        os.mkfifo(target)
    elif what == "a long line":
        target.write_text("x " * 10**6)
    return f"{what} instead"


def _damage_json(file: Path, rng: Any) -> tuple[str, bool]:
    mutation, tree = damaged_tree(json.loads(file.read_text()), rng)
    file.write_text(json.dumps(tree, ensure_ascii=rng.random() < 0.5), errors="surrogatepass")
    return mutation, _impossible(tree)


def _damage_odgt(file: Path, rng: Any) -> tuple[str, bool]:
    lines = file.read_text().splitlines()
    at = rng.randrange(len(lines))
    mutation, tree = damaged_tree(json.loads(lines[at]), rng)
    lines[at] = json.dumps(tree)
    file.write_text("\n".join(lines))
    return mutation, False


def _damage_yaml(file: Path, rng: Any) -> tuple[str, bool]:
    if rng.random() < 0.1:
        tag = rng.choice(("object/apply:os.mkdir", "object/new:os.mkdir", "name:os.mkdir"))
        file.write_text(f"{file.read_text()}more: !!python/{tag} [executed]\n")
        return f"a tag of {tag}", False
    mutation, tree = damaged_tree(yaml.safe_load(file.read_text()), rng)
    try:
        text = yaml.dump(tree, allow_unicode=rng.random() < 0.5)
    except (UnicodeError, ValueError, yaml.YAMLError):
        text = repr(tree)
    file.write_text(text, errors="surrogatepass")
    return mutation, False


def _damage_xml(file: Path, rng: Any) -> tuple[str, bool]:
    text = file.read_text()
    what = rng.choice(("value", "value", "value", "element", "double", "entities", "external"))
    if what == "entities":
        levels = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(12))
        declared = f'<!DOCTYPE a [<!ENTITY e0 "ha">{levels}]>'
        file.write_text(declared + text.replace("disc", "&e12;", 1))
        return what, False
    if what == "external":
        declared = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
        file.write_text(declared + text.replace("disc", "&e;", 1))
        return what, False
    root = ElementTree.fromstring(text)
    parent = rng.choice([e for e in root.iter() if len(e)])
    child = rng.choice([*parent])
    if what == "element":
        parent.remove(child)
    elif what == "double":
        parent.append(child)
    else:
        child.text = str(rng.choice(JUNK[:31]))[:400].replace("\0", "").replace("\udc80", "")
    file.write_bytes(ElementTree.tostring(root, rng.choice(("utf-8", "utf-16", "latin-1")) or None))
    return f"{what} {child.tag}", False


_DAMAGE: dict[str, Callable[[Path, Any], tuple[str, bool]]] = {
    ".json": _damage_json,
    ".odgt": _damage_odgt,
    ".yaml": _damage_yaml,
    ".xml": _damage_xml,
}


def _impossible(tree: Any) -> bool:
    """Whether a box is none, or an annotation is of an image or class that there is not."""
    try:
        images = [image["id"] for image in tree["images"]]
        classes = [category["id"] for category in tree["categories"]]
        for each in tree["annotations"]:
            box = [float(v) if isinstance(v, str) else v for v in each["bbox"]]  # as it is read
            _, _, width, height = box
            if not all(map(math.isfinite, box)) or width <= 0 or height <= 0:
                return True
            if each["image_id"] not in images or each["category_id"] not in classes:
                return True
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return True
    return False


def _records(found: Any, root: Path) -> Any:
    """What a detector learns from, with names of files relative to the dataset."""
    if isinstance(found, OwnDataset):
        parts = {part: _records(getattr(found, part), root) for part in ("train", "val", "test")}
        return {**parts, "classes": found.classes}
    return [
        {
            "file": Path(each["file_name"]).relative_to(root).as_posix(),
            "size": (each["width"], each["height"]),
            "boxes": [
                (tuple(a["bbox"]), a["category_id"], a.get("iscrowd", 0))
                for a in each["annotations"]
            ],
        }
        for each in found or ()
    ]


def _check(records: Any) -> None:
    """What is read has to be what detectron2 can train on."""
    number = len(records["classes"]) if isinstance(records, dict) else 2
    if isinstance(records, dict) and not records["train"]:
        raise Violation("there is nothing to train on")
    parts = [records] if isinstance(records, list) else [records[p] for p in ("train", "val")]
    for each in (record for part in parts for record in part):
        if not all(type(side) is int and side > 0 for side in each["size"]):
            raise Violation(f"a size {each['size']}")
        for box, label, crowd in each["boxes"]:
            real = all(isinstance(v, (int, float)) and math.isfinite(v) for v in box)
            if len(box) != 4 or not real or box[2] <= 0 or box[3] <= 0:
                raise Violation(f"a box {box}")
            if type(label) is not int or not 0 <= label < number or crowd not in (0, 1):
                raise Violation(f"a class {label}, iscrowd={crowd}")


KINDS = {
    "COCO": kind(_coco, _read_own, share=3),
    "COCO of a run": kind(_coco, _read_registered, share=2),
    "Pascal VOC": kind(_voc, _read_own, share=3),
    "YOLO": kind(_yolo, _read_own, share=3),
    "a YAML that describes a dataset": kind(_described, _read_own),
    "ODGT of CrowdHuman": kind(_odgt, _read_odgt, share=2),
}
