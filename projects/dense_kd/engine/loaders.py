"""The loaders of a config; what only a loaded dataset shows is checked before anything runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from detectron2.config import instantiate
from omegaconf import DictConfig

from ..arguments import is_integer
from ..data import WithUnlabelled, detection_dataset
from ..data.named_errors import NamedErrors
from .building import BARE, build, cannot_be_built
from .checks import RunError, teacher_cache
from .checks.data import class_problems, dataset_names, detector_of
from .checks.sizes import vanishing
from .checks.tree import select


class Loaded(NamedTuple):
    """A loader, and what it loads.

    Attributes:
        loader: gives batches.
        images: the dataset dicts, or what else ``dataset`` of the loader is; None if its config
            has no such entry.
    """

    loader: Iterable[Any]
    images: Any


def load_training(cfg: DictConfig) -> Loaded:
    """``dataloader.train`` and its images; its batches hold those of ``dataloader.unlabelled``,
    too, if there is one.

    Raises:
        RunError: the dataset does not fit the model.
        DatasetError: it has nothing to learn from, or there are no unlabelled images.
    """
    labelled = _load_training(cfg)
    if select(cfg, "dataloader.unlabelled") is None:
        return labelled
    try:
        unlabelled = _load(cfg, "unlabelled", "train").loader
        return labelled._replace(loader=WithUnlabelled(labelled.loader, unlabelled))
    except BARE as error:
        raise cannot_be_built("dataloader.unlabelled", error) from error


def _load_training(cfg: DictConfig) -> Loaded:
    try:
        return _load(cfg, "train", "train")
    except AssertionError as error:  # of detectron2's own loaders, for a dataset that is empty
        names = dataset_names(cfg, "train")
        if names:
            detection_dataset(names)  # says which, and what it lacks
        raise cannot_be_built("dataloader.train", error) from error
    except BARE as error:
        raise cannot_be_built("dataloader.train", error) from error


def load_evaluation(cfg: DictConfig, mode: str) -> Loaded:
    """``dataloader.test`` and its images; ``mode`` is that of :func:`.checks.check_run`.

    Raises:
        RunError: it cannot be built, or does not fit the model.
    """
    try:
        return _load(cfg, "test", mode)
    except RunError:
        raise
    except Exception as error:  # of any loader
        names = ", ".join(dataset_names(cfg, "test")) or "unknown"
        raise RunError(
            [f"dataloader.test (dataset {names}): {type(error).__name__}: {error}"]
        ) from error


def _load(cfg: DictConfig, part: str, mode: str) -> Loaded:
    node = cfg.dataloader[part]
    if not isinstance(select(node, "dataset"), DictConfig):
        return Loaded(instantiate(node), None)
    images = instantiate(node.dataset)
    if isinstance(images, DictConfig):
        raise RunError(
            [f"dataloader.{part}.dataset is no LazyCall: it has {sorted(map(str, images))} and no "
             "_target_; expected a call that gives the images"]
        )  # fmt: skip
    problems = [*class_problems(cfg, mode), *_image_problems(cfg, part, mode, images)]
    if part != "test":
        problems += teacher_cache.image_problems(cfg, images, part)
    if problems:
        raise RunError(problems)
    # The dataset is given as it is, for a config would copy it.
    arguments = {key: node[key] for key in node if key != "dataset"}
    if isinstance(arguments.get("mapper"), DictConfig):
        arguments["mapper"] = NamedErrors(build(arguments["mapper"], f"dataloader.{part}.mapper"))
    return Loaded(instantiate({**arguments, "dataset": images}), images)


def _image_problems(cfg: DictConfig, part: str, mode: str, images: Any) -> Iterator[str]:
    if not isinstance(images, Sequence) or not images or not isinstance(images[0], Mapping):
        return
    names = ", ".join(dataset_names(cfg, part)) or "the dataset"
    file = images[0].get("file_name")
    if isinstance(file, str) and "://" not in file and not os.path.isfile(file):
        yield f"{names} (dataloader.{part}): its first image {file} does not exist"
    augmentations = select(cfg, f"dataloader.{part}.mapper.augmentations")
    for problem in vanishing(images, augmentations):
        yield f"{names} (dataloader.{part}): {problem} (max_size of T.ResizeShortestEdge)"
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
