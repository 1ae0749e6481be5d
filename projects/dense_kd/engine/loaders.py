"""The loaders of a config; what only a loaded dataset shows is checked before anything runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig

from ..arguments import is_integer
from ..data import detection_dataset
from .building import BARE, cannot_be_built
from .checks import RunError
from .checks.data import class_problems, dataset_names, detector_of
from .checks.tree import select


def training_loader(cfg: DictConfig) -> Iterable[Any]:
    """``dataloader.train``.

    Raises:
        RunError: the dataset does not fit the model.
        DatasetError: it has nothing to learn from.
    """
    try:
        return _loader(cfg, "train", "train")
    except AssertionError:  # of detectron2's own loaders, for a dataset that is empty
        names = dataset_names(cfg, "train")
        if names:
            detection_dataset(names)  # says which, and what it lacks
        raise
    except BARE as error:
        raise cannot_be_built("dataloader.train", error) from error


def evaluation_loader(cfg: DictConfig, mode: str) -> Iterable[Any]:
    """``dataloader.test``; ``mode`` is that of :func:`.checks.check_run`.

    Raises:
        RunError: it cannot be built, or does not fit the model.
    """
    try:
        return _loader(cfg, "test", mode)
    except RunError:
        raise
    except Exception as error:  # of any loader
        names = ", ".join(dataset_names(cfg, "test")) or "unknown"
        raise RunError(
            [f"dataloader.test (dataset {names}): {type(error).__name__}: {error}"]
        ) from error


def _loader(cfg: DictConfig, part: str, mode: str) -> Iterable[Any]:
    node = cfg.dataloader[part]
    if not isinstance(select(node, "dataset"), DictConfig):
        return instantiate(node)
    images = instantiate(node.dataset)
    problems = [*class_problems(cfg, mode), *_image_problems(cfg, part, mode, images)]
    if problems:
        raise RunError(problems)
    # The dataset is given as it is, for a config would copy it.
    arguments = {key: node[key] for key in node if key != "dataset"}
    return instantiate({**arguments, "dataset": images})


def _image_problems(cfg: DictConfig, part: str, mode: str, images: Any) -> Iterator[str]:
    if not isinstance(images, Sequence) or not images or not isinstance(images[0], Mapping):
        return
    names = ", ".join(dataset_names(cfg, part)) or "the dataset"
    file = images[0].get("file_name")
    if isinstance(file, str) and "://" not in file and not os.path.isfile(file):
        yield f"{names} (dataloader.{part}): its first image {file} does not exist"
    place, detector = detector_of(cfg, mode)
    number = select(detector, "num_classes")
    if part != "train" or not is_integer(number):
        return
    for image in images:
        for annotation in image.get("annotations", ()):
            found = annotation.get("category_id", 0)
            if not 0 <= found < number:
                yield (
                    f"{names} (dataloader.{part}) has an object of class {found} in "
                    f"{image.get('file_name')}; with {place}.num_classes={number}, classes are 0 "
                    f"to {number - 1}"
                )
                return
