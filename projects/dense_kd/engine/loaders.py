"""The loaders of a config; what only a loaded dataset shows is checked before anything runs."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import instantiate
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from omegaconf import DictConfig
from torch import Tensor

from ..arguments import is_integer, is_number
from ..data import WithUnlabelled, detection_dataset
from ..data.named_errors import NamedErrors
from ..data.records import (
    boxes_without_area,
    catalog_problem,
    missing_files,
    record_problem,
    repeated_ids,
)
from ..errors import DenseKDError
from ..random_state import kept_random_state
from .building import BARE, build, cannot_be_built
from .checks import RunError, teacher_cache
from .checks.data import class_problems, dataset_names, detector_of
from .checks.sizes import vanishing
from .checks.teacher_cache import size_of
from .checks.tree import calls_of, select, target_of

logger = logging.getLogger(__name__)


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
    except DenseKDError:
        raise
    except Exception as error:  # of any loader
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
        names = dataset_names(cfg, "test")
        why = catalog_problem(names) or f"{type(error).__name__}: {error}"
        shown = ", ".join(names) or "unknown"
        raise RunError([f"dataloader.test (dataset {shown}): {why}"]) from error


def _try_first_image(mapper: Callable[[Any], Any] | None, images: Any) -> None:
    """Training meets a mapper that fails in its first batch, but an evaluation may be hours away.

    It is a copy that is tried, as a mapper may open files that are not to be inherited by workers.

    Raises:
        RunError: the mapper gives no image.
        Exception: of the mapper.
    """
    if not isinstance(images, Sequence) or not images:
        return
    with kept_random_state():
        record = copy.deepcopy(images[0])
        mapped = record if mapper is None else _copied(mapper)(record)
    image = mapped.get("image") if isinstance(mapped, Mapping) else None
    if not isinstance(image, Tensor) or image.dim() != 3:
        is_dict = isinstance(mapped, Mapping)
        found = f"a dict with image={_kind(image)}" if is_dict else _kind(mapped)
        raise RunError(
            [
                f"dataloader.test gives {found} for its first image; expected a dict with image=a "
                "tensor (C, H, W), as L(detectron2.data.DatasetMapper)(is_train=False, ...) gives "
                "as the loader's mapper"
            ]
        )


def _copied(mapper: Callable[[Any], Any]) -> Callable[[Any], Any]:
    try:
        return copy.deepcopy(mapper)
    except Exception:  # of whatever it holds, as a lock
        return mapper


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    shape = f" of {tuple(value.shape)}" if isinstance(value, (Tensor, np.ndarray)) else ""
    return f"a {type(value).__name__}{shape}"


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
    mapper = arguments.get("mapper")
    if mapper is not None:
        described = isinstance(mapper, DictConfig)
        built = build(mapper, f"dataloader.{part}.mapper") if described else mapper
        arguments["mapper"] = NamedErrors(built, every_image=part == "test")
    if part == "test" and "mapper" in arguments:
        _try_first_image(arguments["mapper"], images)
    return Loaded(instantiate({**arguments, "dataset": images}), images)


def _image_problems(cfg: DictConfig, part: str, mode: str, images: Any) -> Iterator[str]:
    if not isinstance(images, Sequence) or not images or not isinstance(images[0], Mapping):
        return
    dataset = f"{', '.join(dataset_names(cfg, part)) or 'the dataset'} (dataloader.{part})"
    missing = missing_files(images)
    if missing:
        more = f", nor do {len(missing) - 1} more" if len(missing) > 1 else ""
        yield f"{dataset}: the image {missing[0]} does not exist{more}"
    mapper = target_of(select(cfg, f"dataloader.{part}.mapper"))
    if isinstance(mapper, type) and issubclass(mapper, DatasetMapper):  # others read what they like
        # detection_dataset has looked at them itself.
        looked_at = target_of(select(cfg, f"dataloader.{part}.dataset")) is detection_dataset
        wrong = "" if looked_at else record_problem(images, training=part == "train")
        if wrong:
            yield f"{dataset} {wrong}"
            return
        _warn_of_boxes(dataset, part, images)
    augmentations = select(cfg, f"dataloader.{part}.mapper.augmentations")
    for problem in vanishing(images, augmentations):
        yield f"{dataset}: {problem} (max_size of T.ResizeShortestEdge)"
    if part != "unlabelled":
        yield from _class_numbers(cfg, mode, dataset, images)
    if part == "test":
        yield from _for_evaluators(cfg, dataset, images)


def _warn_of_boxes(dataset: str, part: str, images: Sequence[Mapping[str, Any]]) -> None:
    files = boxes_without_area(images)
    if files:
        learnt = part == "train"
        logger.warning(
            f"{dataset} has {len(files)} boxes without any pixel of their image, the first in "
            f"{files[0]}: {'they are not learnt from' if learnt else 'they can only be missed'}"
        )


def _class_numbers(
    cfg: DictConfig, mode: str, dataset: str, images: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    place, detector = detector_of(cfg, mode)
    number = select(detector, "num_classes")
    if not is_integer(number):
        return
    for image in images:
        for annotation in image.get("annotations", ()):
            found = annotation.get("category_id", 0)
            if is_number(found) and not 0 <= found < number:
                yield (
                    f"{dataset} has an object of class {found} in "
                    f"{image.get('file_name')}; with {place}.num_classes={number}, classes are 0 "
                    f"to {number - 1}"
                )
                return


def _for_evaluators(
    cfg: DictConfig, dataset: str, images: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """COCO's evaluators tell images by their ids, and write a json of those of a function."""
    if not any(calls_of(select(cfg, "dataloader.evaluator"), "", COCOEvaluator)):
        return
    repeated = repeated_ids(images)
    if repeated:
        shared = f"several images of image_id={repeated[0]!r}"
        found = "no image_id" if repeated[0] is None else shared
        yield f"{dataset} has {found}; expected another one for each image, as a count from 1"
    files = [MetadataCatalog.get(name).get("json_file") for name in dataset_names(cfg, "test")]
    unsized = [image for image in images if not size_of(image)] if None in files else []
    if unsized:
        yield (
            f"{dataset} has {unsized[0].get('file_name')} without height or width, which "
            "COCOEvaluator needs; give both in pixels"
        )
