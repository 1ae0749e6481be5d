"""Datasets, their classes and the evaluator, as far as they can be judged without loading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from omegaconf import DictConfig, ListConfig
from PIL import Image

from ...arguments import is_integer
from ...checkpoint.classes import in_another_order
from ...data import default_bccd_root
from ...data.records import repeated
from ...detectors import DenseDetector
from ...options import is_list
from ...teacher import Teacher
from .errors import RunError, choice
from .files import folder_problems
from .tree import calls, calls_of, select, target_of

_FORMATS = {"BGR", "YUV-BT.601", *Image.MODES}


def problems(cfg: DictConfig, mode: str) -> Iterator[str]:
    """All that ``dataloader`` refers to and that is not there, or does not fit together."""
    for part in ("train", "test", "unlabelled") if mode == "train" else ("test",):
        yield from name_problems(cfg, part)
    yield from _evaluator(cfg, mode)
    yield from _image_formats(cfg)
    yield from class_problems(cfg, mode)


def dataset_names(cfg: DictConfig, part: str) -> list[str]:
    """The registered datasets of ``dataloader.train`` or ``dataloader.test``; [] if unknown."""
    names = select(cfg, f"dataloader.{part}.dataset.names")
    if isinstance(names, str):
        return [names]
    names = names if is_list(names) else ()
    return [name for name in names if isinstance(name, str)]


def class_problems(cfg: DictConfig, mode: str) -> Iterator[str]:
    """Where the model has other classes than a dataset whose classes are known by now.

    Those of a COCO json are read when it is loaded, so this is asked again then.
    """
    place, model = detector_of(cfg, mode)
    if "num_classes" in (model if isinstance(model, DictConfig) else ()):
        number = select(model, "num_classes")
        if not is_integer(number) or number < 1:
            yield f"{place}.num_classes={number!r}: expected a whole number of at least 1"
            return
    number, own = select(model, "num_classes"), select(model, "class_names")
    known = _known_classes(cfg, mode)
    for name, classes in {name: classes for _, name, classes in known}.items():
        twice = repeated(classes)
        if twice:
            numbers = [index for index, each in enumerate(classes) if each == twice[0]]
            yield (
                f"the dataset {name} calls the classes {numbers} all {twice[0]!r}; expected a name "
                "for each class, as results are kept by names. Rename one, or give their objects "
                "one category"
            )
    for part, name, classes in known:
        if is_integer(number) and number != len(classes):
            yield (
                f"{place}.num_classes={number}, but the dataset {name} (dataloader.{part}) has "
                f"{len(classes)} classes ({_few(classes)}); give {place}.num_classes={len(classes)}"
            )
        elif isinstance(own, (list, ListConfig)) and list(own) != classes:
            yield (
                f"{place}.class_names ({_few(list(own))}) are not those of the dataset {name} "
                f"(dataloader.{part}) in its order ({_few(classes)}); class {_first(own, classes)}"
            )
    for (_, name, classes), (_, other, others) in zip(known, known[1:]):
        moved = [c for i, c in enumerate(classes) if c in others and others.index(c) != i]
        if moved and len(classes) == len(others):
            yield (
                f"the datasets {name} and {other} have their classes in another order: "
                f"{moved[0]!r} is {classes.index(moved[0])} there and {others.index(moved[0])} here"
            )


def check_file_classes(cfg: DictConfig, mode: str, file: str, names: list[str] | None) -> None:
    """Check the classes that a file names against those of the datasets, which are loaded by now.

    For a detector whose config does not name its own; otherwise the file was compared with that.

    Raises:
        RunError: the file was trained for a dataset's classes in another order.
    """
    problems = []
    names = names or []
    for part, dataset, classes in _known_classes(cfg, mode):
        moved = in_another_order(names, classes)
        if moved:
            first = moved[0]
            problems.append(
                f"{file} was trained for the classes of the dataset {dataset} (dataloader.{part}) "
                f"in another order: class {first} is {names[first]!r} there and {classes[first]!r} "
                "here. Give the detector that reads it the class_names of the file, and the "
                "student those of the dataset"
            )
    if problems:
        raise RunError(problems)


def check_teacher_classes(cfg: DictConfig, mode: str, teacher: Teacher) -> None:
    """:func:`check_file_classes` of the file that ``teacher`` was loaded from, if there is one.

    Raises:
        RunError: it was trained for a dataset's classes in another order.
    """
    if teacher.weights is not None and teacher.model.class_names is None:
        check_file_classes(cfg, mode, teacher.weights, teacher.file_classes)


def _known_classes(cfg: DictConfig, mode: str) -> list[tuple[str, str, list[str]]]:
    """(part of dataloader, dataset, its classes) as far as they are known by now."""
    return [
        (part, name, list(classes))
        for part in (("train", "test") if mode == "train" else ("test",))
        for name in dataset_names(cfg, part)
        if (classes := _metadata(name, "thing_classes")) is not None
    ]


def detector_of(cfg: DictConfig, mode: str) -> tuple[str, Any]:
    """(place, config) of the detector that is trained or evaluated."""
    if mode == "evaluate_teacher":
        return "model.teacher.model", select(cfg, "model.teacher.model")
    if select(cfg, "model.student") is not None:
        return "model.student", select(cfg, "model.student")
    return "model", select(cfg, "model")


def name_problems(cfg: DictConfig, part: str) -> Iterator[str]:
    """What the names of datasets in ``dataloader.train`` or another part do not stand for."""
    place = f"dataloader.{part}.dataset.names"
    dataset = select(cfg, f"dataloader.{part}.dataset")
    if isinstance(dataset, DictConfig) and "names" in dataset:
        given, known = select(dataset, "names"), dataset_names(cfg, part)
        given = list(given) if isinstance(given, ListConfig) else given
        if not known or given not in (known, known[0]):
            yield (
                f"{place}={given!r}: expected the name of a registered dataset, or a list of "
                f"names; give one, as in {place}=coco_2017_{'train' if part == 'train' else 'val'}"
            )
    for name in dataset_names(cfg, part):
        if name not in DatasetCatalog:
            yield (
                f"{place}={name}: no such dataset is registered (one's own are by the .py config "
                f"of a run); {choice(name, DatasetCatalog)}"
            )
            continue
        for kind in ("json_file", "image_root", "dirname"):
            path = _metadata(name, kind)
            if kind == "json_file" and is_converted(name, path):
                continue  # it is written when it is needed
            if isinstance(path, str) and "://" not in path and not os.path.exists(path):
                where = _metadata(name, "where") or _where(path)
                yield f"{place}={name}: {path} does not exist. {where}"
                break


def converted_name(name: str) -> str:
    """The file, of detectron2's choice, of a dataset that is registered with a function."""
    return f"{name}_coco_format.json"


def is_converted(name: str, json_file: str | None) -> bool:
    """Whether the ``json_file`` of a dataset was written for an evaluator of this process."""
    return json_file is not None and os.path.basename(json_file) == converted_name(name)


def _where(path: str) -> str:
    if "shapes" in path and not os.path.isabs(path):
        make = "`dense-kd data shapes` draws the shapes dataset. "
    elif path.startswith(default_bccd_root()):
        make = "`dense-kd data bccd` fetches it. "
    else:
        make = ""
    root = os.getenv("DETECTRON2_DATASETS")
    if root is None:
        return (
            f"{make}Datasets are looked for in ./datasets (here {os.path.abspath('datasets')}); "
            "set DETECTRON2_DATASETS to the folder that holds them"
        )
    return f"{make}DETECTRON2_DATASETS={root} should be the folder that holds them"


def _evaluator(cfg: DictConfig, mode: str) -> Iterator[str]:
    evaluator = select(cfg, "dataloader.evaluator")
    if evaluator is None:
        period = select(cfg, "train.eval_period", 0)
        if mode != "train":
            yield "dataloader has no evaluator, so there is nothing to evaluate with"
        elif is_integer(period) and period > 0:
            yield (
                f"train.eval_period={period}, but dataloader has no evaluator; add one, as "
                "L(COCOEvaluator)(dataset_name=...), or give train.eval_period=0"
            )
        return
    if isinstance(evaluator, (str, int, float)):
        yield (
            f"dataloader.evaluator={evaluator!r}: expected a LazyCall, as "
            "L(COCOEvaluator)(dataset_name=...)"
        )
        return
    if select(cfg, "dataloader.test") is None:
        yield "dataloader has an evaluator and no test, the loader of what it evaluates on"
    tested = dataset_names(cfg, "test")
    for place, node in calls(evaluator, "dataloader.evaluator"):
        folder = select(node, "output_dir", "")
        if not isinstance(folder, str):
            yield f"{place}.output_dir={folder!r}: expected a folder"
        elif folder != select(cfg, "train.output_dir"):  # that is looked at itself
            yield from folder_problems(f"{place}.output_dir", folder)
        name = select(node, "dataset_name")
        if name is None or (isinstance(name, ListConfig) and not name and not tested):
            continue  # names of the dataset are missing, which is said already
        if not isinstance(name, str):
            names = list(name) if isinstance(name, ListConfig) else [name]
            yield (
                f"{place}.dataset_name={names}: expected the name of one dataset, as in "
                f"{place}.dataset_name={names[0] if names else 'coco_2017_val'}"
            )
        elif name not in DatasetCatalog:
            if name not in tested:
                yield (
                    f"{place}.dataset_name={name}: no such dataset is registered; "
                    f"{choice(name, tested or DatasetCatalog)}"
                )
        elif tested and name not in tested and not _same_json(name, tested):
            yield (
                f"{place}.dataset_name={name}, but the images are those of "
                f"{', '.join(tested)} (dataloader.test.dataset.names); use one name for both"
            )
    detector = detector_of(cfg, mode)[1]
    target = target_of(detector) if isinstance(detector, DictConfig) else None
    if isinstance(target, type) and issubclass(target, DenseDetector):
        for place, node in calls_of(evaluator, "dataloader.evaluator", COCOEvaluator):
            tasks = select(node, "tasks")
            others = [t for t in tasks if t != "bbox"] if isinstance(tasks, ListConfig) else []
            if others:
                yield f"{place}.tasks has {others}, but {target.__name__} detects boxes only (bbox)"


def _image_formats(cfg: DictConfig) -> Iterator[str]:
    formats = {
        part: select(cfg, f"dataloader.{part}.mapper.image_format")
        for part in ("train", "test", "unlabelled")
    }
    train, test = formats["train"], formats["test"]
    if train and test and train != test:
        yield (
            f"dataloader.train.mapper.image_format={train} and dataloader.test.mapper."
            f"image_format={test}: the model would be evaluated on other images than it learns "
            "from; give both one format"
        )
    student = select(cfg, "model.student")
    for part, given in formats.items():
        if given and given not in _FORMATS:
            yield (
                f"dataloader.{part}.mapper.image_format={given}: no such format; "
                f"{choice(given, ('BGR', 'RGB', 'L'))}"
            )
    expected = select(student, "input_format", "BGR")
    for part, given in formats.items():
        if student is not None and given and given != expected:
            yield (
                f"dataloader.{part}.mapper.image_format={given}, but model.student.input_format="
                f"{expected}, by which the teacher's images are made; give both one format"
            )


def _metadata(name: str, key: str) -> Any:
    return MetadataCatalog.get(name).get(key) if name in DatasetCatalog else None


def _same_json(name: str, others: list[str]) -> bool:
    file = _metadata(name, "json_file")
    return file is not None and all(_metadata(other, "json_file") == file for other in others)


def _few(names: list[str]) -> str:
    return ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")


def _first(ours: Any, theirs: list[str]) -> str:
    index = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), len(theirs))
    pair = [names[index] if index < len(names) else "nothing" for names in (ours, theirs)]
    return f"{index} is {pair[0]!r} and {pair[1]!r}"
