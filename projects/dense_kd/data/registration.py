"""Registers COCO JSON files with detectron2's catalogs."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from .build import DatasetError
from .records import repeated


def register_annotations(
    name: str, json_file: str | os.PathLike[str], image_root: str | os.PathLike[str]
) -> None:
    """Make a COCO JSON file known to detectron2, and to configs, by a name.

    A config calls it at its top, so that the name exists in every process that loads it. Of the
    file only the categories are read now; the names of the classes are known at once. Images and
    boxes are read when the dataset is loaded.

    Args:
        name: for ``dataloader.*.dataset.names`` and evaluators.
        json_file: relative to the working directory or absolute.
        image_root: the folder that names of files in it are relative to.

    Raises:
        DatasetError: a file or folder is missing or no COCO file, two of its categories have one id
            or one name, or the name stands for another dataset.
    """
    path, root = os.path.abspath(json_file), os.path.abspath(image_root)
    if name not in DatasetCatalog and not os.path.isdir(root):
        raise DatasetError(f"the dataset {name!r} has no image_root {root}: no such folder")
    register_file(name, path, root)


def register_file(name: str, path: str, root: str, **more: Any) -> None:
    """:func:`register_annotations` of absolute paths; images may be missing.

    Args:
        name, path, root: see there.
        more: entries of the metadata, such as ``where``: what to do if the images are missing.

    Raises:
        DatasetError: see there.
    """
    if name in DatasetCatalog:
        metadata = MetadataCatalog.get(name)
        known = metadata.get("json_file"), metadata.get("image_root")
        if known == (path, root):
            return
        raise DatasetError(
            f"the dataset {name!r} is registered already, with the file {known[0]} and images in "
            f"{known[1]}; expected {path} and {root}, or a free name. Choose another name"
        )
    categories = _categories(name, path)
    DatasetCatalog.register(name, functools.partial(load_coco_json, path, root, name))
    MetadataCatalog.get(name).set(
        json_file=path,
        image_root=root,
        evaluator_type="coco",
        thing_classes=[category for _, category in categories],
        thing_dataset_id_to_contiguous_id={key: i for i, (key, _) in enumerate(categories)},
        **more,
    )


@contextlib.contextmanager
def datasets_forgotten() -> Iterator[None]:
    """Names of datasets that are registered here, as by configs, are free afterwards."""
    before = set(DatasetCatalog)
    try:
        yield
    finally:
        for name in set(DatasetCatalog) - before:
            DatasetCatalog.remove(name)
            MetadataCatalog.pop(name, None)


def _categories(name: str, path: str) -> list[tuple[int, str]]:
    """(id, name), sorted as detectron2 sorts them."""
    if os.path.exists(path) and not os.path.isfile(path):  # as a pipe, which would wait
        raise DatasetError(f"the dataset {name!r}: {path} is not a file; expected annotations")
    try:
        found = _entry(Path(path).read_text(encoding="utf-8-sig"), "categories")
        found = [(int(category["id"]), str(category["name"])) for category in found]
    except OSError as error:
        raise DatasetError(
            f"the dataset {name!r} has no annotations {path}: {error.strerror or error}"
        ) from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DatasetError(
            f"the dataset {name!r}: {path} is no COCO file with categories, each with id and name "
            f"({type(error).__name__}: {error})"
        ) from error
    for part, values in zip(("id", "name"), zip(*found)):
        twice = repeated(values)
        if twice:
            raise DatasetError(
                f"the dataset {name!r}: {path} has several categories of the {part} {twice[0]!r}; "
                f"expected each {part} once. Give each class its own, or their objects one"
            )
    return sorted(found)


def _entry(text: str, key: str) -> Any:
    """One entry of a JSON object; what follows it is not parsed.

    Raises:
        ValueError: of another form.
        KeyError: there is no such entry.
    """
    decoder = json.JSONDecoder()

    def after_space(place: int) -> int:
        while text[place : place + 1] in (" ", "\t", "\n", "\r"):
            place += 1
        return place

    place = after_space(0)
    separator = "{"
    while text[place : place + 1] == separator:
        found, place = decoder.raw_decode(text, after_space(place + 1))
        place = after_space(place)
        if text[place : place + 1] != ":":
            raise ValueError(f"expected ':' at character {place}")
        value, place = decoder.raw_decode(text, after_space(place + 1))
        if found == key:
            return value
        place, separator = after_space(place), ","
    raise KeyError(key)
