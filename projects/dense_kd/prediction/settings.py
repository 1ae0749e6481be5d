"""What a predictor takes from a file, from a config, or from neither."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Union

import torch
from detectron2.data import transforms as T
from omegaconf import DictConfig

from ..checkpoint import CheckpointError
from ..checkpoint.description import Description, description_of
from ..description import build_described
from ..detectors.base.images import CHANNELS
from ..engine import RunError, load_config
from ..engine.checks.data import detector_of
from ..engine.state.described_run import describe_run
from ..recipes import PUBLISHED
from .errors import PredictionError

Config = Union[str, "os.PathLike[str]", DictConfig, None]


def chosen_device(device: str | torch.device | None) -> torch.device:
    """A device that can be used here; for None the GPU if there is one.

    Raises:
        PredictionError: it cannot.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # "meta" has no numbers
    except Exception as error:  # of any backend
        reason = str(error).partition("\n")[0]
        raise PredictionError(
            f"device={str(device)!r} cannot be used here ({reason}); expected cpu, or cuda on a "
            "machine with a GPU that torch sees"
        ) from error
    return chosen


def described_by(
    config: Config, content: Any, source: str
) -> tuple[DictConfig | None, Description]:
    """How a checkpoint's detector is built and shown its images.

    Args:
        config: see :class:`.predictor.Predictor`.
        content: of the checkpoint.
        source: its path or name.

    Returns:
        (the LazyCall of the detector in ``config``, or None if there is none, its description).

    Raises:
        CheckpointError: nothing says it.
        RunError: ``config`` cannot be loaded, or has no model.
    """
    if config is None:
        description = description_of(content, source)
        if description is not None and description.model is not None:
            return None, description
        config = next((name for name, file in PUBLISHED.items() if file == source), None)
        if config is None:
            why = (
                f"cannot be described: {description.incomplete}"
                if description is not None
                else "does not describe its detector, as the checkpoints of runs of this package "
                "from version 0.2 do"
            )
            raise CheckpointError(
                f"{source} {why}. Give the config of its run: config= of the Predictor, --config "
                "of dense-kd predict"
            )
    cfg = _loaded(config)
    node = detector_of(cfg, "evaluate")[1]
    if node is None:
        raise RunError(["the config has no 'model', expected the config of a run"])
    return node, describe_run(cfg)


def _loaded(config: str | os.PathLike[str] | DictConfig) -> DictConfig:
    if isinstance(config, Mapping):  # which a DictConfig is
        whole = "_target_" not in config
        return config if whole else DictConfig({"model": config}, flags={"allow_objects": True})
    return load_config(os.fspath(config))


def augmentations_of(
    given: Sequence[T.Augmentation] | None, description: Description, source: str
) -> list[T.Augmentation]:
    """What is done to an image before it is detected on.

    Raises:
        CheckpointError: nothing is ``given``, and the description lacks them.
    """
    if given is not None:
        return list(given)
    if description.augmentations is None:
        raise CheckpointError(
            f"how images are resized for {source} is not known ({description.incomplete}); give "
            "the augmentations that are done to a test image (augmentations= of the Predictor)"
        )
    place = f"the augmentations in {source}"
    made = build_described(description.augmentations, place)
    for item in made:
        if not isinstance(item, T.Augmentation):
            raise CheckpointError(f"{place} hold a {type(item).__name__}, no augmentation")
    return made


def checked_format(description: Description, source: str) -> str:
    """The channels of images; a CheckpointError if there is no such format."""
    if description.image_format not in CHANNELS:
        raise CheckpointError(
            f"{source} takes images in the image_format {description.image_format!r}; expected one "
            f"of {', '.join(CHANNELS)}"
        )
    return description.image_format


def classes_of(
    num_classes: Any, names: Sequence[str] | None, description: Description
) -> tuple[list[str], list[int]]:
    """(names of the classes, ids of the classes in their dataset).

    Args:
        num_classes: K, None if the model does not tell.
        names: of the file, None if it has none.
        description: whose ids are those of its own classes.
    """
    if names is None:
        names = [f"class {index}" for index in range(num_classes or 0)]
    ids = description.category_ids if list(names) == description.class_names else None
    return list(names), list(range(len(names))) if ids is None else list(ids)
