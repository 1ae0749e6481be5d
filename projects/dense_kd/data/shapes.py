"""A generated detection dataset in COCO format: "shapes", drawn on disk from a seed."""

from __future__ import annotations

import functools
import json
import logging
import multiprocessing
import os
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from PIL import Image

from ..checkpoint import replace_atomically, write_text
from .build import dataset_root
from .shapes_drawing import CLASSES, draw_image

__all__ = [
    "CLASSES",
    "DEFAULT_SIZES",
    "SPLITS",
    "default_shapes_root",
    "generate_shapes",
    "register_all_shapes",
    "register_shapes",
]

logger = logging.getLogger(__name__)

DEFAULT_SIZES = {"train": 2000, "tune": 300, "val": 500}
"""{split: number of images} of the configs in ``quickstart/``."""

SPLITS = tuple(DEFAULT_SIZES)

# Recorded in every dataset. Raise the version when the same settings draw other images.
_GENERATOR = "dense_kd.data.shapes"
_VERSION = 1
_MIN_IMAGE_SIDE = 32
_LOG_PERIOD = 500


def default_shapes_root() -> str:
    """Return where the builtin splits are: `shapes` in $DETECTRON2_DATASETS, or in `datasets`."""
    return dataset_root("shapes")


def generate_shapes(
    root: str | os.PathLike[str],
    split: str,
    num_images: int,
    *,
    image_size: tuple[int, int] = (128, 128),
    seed: int = 0,
    max_objects: int = 5,
    num_workers: int = 0,
) -> str:
    """Write one split of the shapes dataset, unless it is there already.

    Writes `<root>/<split>/000000.png` and so on, and `<root>/annotations/instances_<split>.json`
    last. Without the json the dataset is incomplete, and the next call makes it again.

    An image depends on its index and on all arguments but `num_images` and `num_workers`, so a
    larger dataset begins with the smaller one.

    Args:
        root: folder of the dataset.
        split: any identifier. Splits of different names have different images.
        num_images: number of images.
        image_size: (height, width) of all images, in pixels.
        seed: seed of the dataset.
        max_objects: an image holds 1 to this many objects; about 2 % of the images hold none.
        num_workers: number of processes that draw; 0 draws in this one.

    Returns:
        Path of the json file.
    """
    root = os.fspath(root)
    if not isinstance(split, str) or not split.isidentifier():
        raise ValueError(
            f"split is {split!r}; expected an identifier. Use letters, digits and underscores, "
            f"for example {SPLITS[0]!r}."
        )
    if not isinstance(image_size, (tuple, list)) or len(image_size) != 2:
        raise ValueError(
            f"image_size is {image_size!r}; expected (height, width). "
            "Give two integers, for example (128, 128)."
        )
    settings = {
        "version": _VERSION,
        "split": split,
        "num_images": _integer("num_images", num_images, 1),
        "image_size": [_integer("image_size", side, _MIN_IMAGE_SIDE) for side in image_size],
        "seed": _integer("seed", seed, 0),
        "max_objects": _integer("max_objects", max_objects, 1),
    }
    num_workers = _integer("num_workers", num_workers, 0)

    json_file, image_root = _paths(root, split)
    previous = _read_previous(json_file)
    if previous is not None:
        names = [image["file_name"] for image in previous["images"]]
        if previous["info"]["settings"] == settings and _all_present(image_root, names):
            return json_file
        if previous["info"]["settings"] != settings:
            before = previous["info"]["settings"]
            changes = [
                f"{k} {before.get(k)} -> {v}" for k, v in settings.items() if before.get(k) != v
            ]
            logger.warning(f"{image_root} is drawn anew, with other settings: {', '.join(changes)}")
        # The json goes first: from here on a killed run leaves no complete-looking dataset.
        os.remove(json_file)
        for name in names:
            _remove_if_present(os.path.join(image_root, name))

    os.makedirs(image_root, exist_ok=True)
    os.makedirs(os.path.dirname(json_file), exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, objects in _write_images(image_root, settings, num_workers):
        images.append(image)
        for annotation in objects:
            annotations.append({"id": len(annotations) + 1, **annotation})
        if len(images) % _LOG_PERIOD == 0:
            logger.info("%s: %d of %d images", image_root, len(images), num_images)

    _write_json(
        json_file,
        {
            "info": {
                "description": "Generated shapes",
                "generator": _GENERATOR,
                "settings": settings,
            },
            "licenses": [],
            "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)],
            "images": images,
            "annotations": annotations,
        },
    )
    logger.info("Wrote %d images, %d objects: %s", len(images), len(annotations), json_file)
    return json_file


def register_shapes(name: str, root: str | os.PathLike[str], split: str) -> None:
    """Register one split under a name for DATASETS.TRAIN or DATASETS.TEST.

    The files are read when the dataset is first loaded, and may be made after this call.

    Args:
        name: name of the dataset.
        root: the folder given to :func:`generate_shapes`.
        split: the split given to :func:`generate_shapes`.
    """
    json_file, image_root = _paths(os.fspath(root), split)
    if name in DatasetCatalog:
        registered = MetadataCatalog.get(name).get("json_file")
        if registered == json_file:
            return
        raise ValueError(
            f"dataset {name!r} is registered already, with json_file {registered!r}; expected a "
            f"free name for {json_file!r}. Use another name, or DatasetCatalog.remove and "
            "MetadataCatalog.remove first."
        )
    DatasetCatalog.register(name, functools.partial(_load, name, os.fspath(root), split))
    MetadataCatalog.get(name).set(json_file=json_file, image_root=image_root, evaluator_type="coco")


def register_all_shapes() -> None:
    """Register `shapes_train`, `shapes_tune` and `shapes_val` under the default root."""
    for split in SPLITS:
        if f"shapes_{split}" not in DatasetCatalog:
            register_shapes(f"shapes_{split}", default_shapes_root(), split)


def _load(name: str, root: str, split: str) -> list[dict[str, Any]]:
    json_file, image_root = _paths(root, split)
    for path in (json_file, image_root):
        if not os.path.exists(path):
            command = "dense-kd data shapes"
            if root != default_shapes_root() or split not in SPLITS:
                command = f"dense_kd.data.generate_shapes({root!r}, {split!r}, num_images)"
            raise FileNotFoundError(
                f"dataset {name!r} has no {path!r}; expected a generated dataset under {root!r}. "
                f"Make it with: {command}"
            )
    return load_coco_json(json_file, image_root, name)


def _paths(root: str, split: str) -> tuple[str, str]:
    """Return the json file and the image folder of a split."""
    json_file = os.path.join(root, "annotations", f"instances_{split}.json")
    return json_file, os.path.join(root, split)


def _integer(name: str, value: object, minimum: int) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= minimum:
        return int(value)
    raise ValueError(f"{name} is {value!r}; expected an integer. Set it to {minimum} or more.")


def _read_previous(json_file: str) -> dict[str, Any] | None:
    """Return what an earlier call wrote, or None. A file of another origin is an error."""
    try:
        with open(json_file) as f:
            content = json.load(f)
        if content["info"]["generator"] == _GENERATOR:
            return content
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        f"{json_file!r} was not written by generate_shapes; expected no file or one of its own. "
        "Remove the file, or use another root or split."
    )


def _all_present(image_root: str, names: list[str]) -> bool:
    return os.path.isdir(image_root) and set(names) <= set(os.listdir(image_root))


def _remove_if_present(path: str) -> None:
    try:
        os.remove(path)
    except FileNotFoundError:
        pass


def _write_images(
    image_root: str, settings: dict[str, Any], num_workers: int
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Write all images and yield the COCO record and annotations (without id) of each, in order."""
    write = functools.partial(_write_image, image_root, settings)
    indices = range(settings["num_images"])
    if num_workers == 0:
        yield from map(write, indices)
    else:
        with multiprocessing.Pool(num_workers) as pool:
            yield from pool.imap(write, indices, chunksize=32)


def _write_image(
    image_root: str, settings: dict[str, Any], index: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    height, width = settings["image_size"]
    # hash() of a string differs between runs; crc32 does not.
    entropy = [settings["seed"], zlib.crc32(settings["split"].encode()), index]
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    pixels, objects = draw_image(rng, height, width, settings["max_objects"])

    name = f"{index:06d}.png"
    # Two runs of the same settings at once, e.g. of two training processes, stay harmless.
    picture = Image.fromarray(pixels)
    replace_atomically(
        os.path.join(image_root, name),
        # Noise has nothing but runs to compress, and looking for more takes longer than drawing.
        lambda file: picture.save(file, format="PNG", compress_type=zlib.Z_RLE),
        one_of_many=True,
    )

    image = {"id": index + 1, "file_name": name, "height": height, "width": width}
    annotations = [
        {
            "image_id": index + 1,
            "category_id": o.category + 1,
            "bbox": list(o.box),
            "area": o.area,
            "iscrowd": 0,
        }
        for o in objects
    ]
    return image, annotations


def _write_json(path: str, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content))


register_all_shapes()
