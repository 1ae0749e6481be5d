"""The weights of a classifier of timm for the feature extractor (``features_only``) of the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import CheckpointError, listed
from .keys import BACKBONE

TIMM = f"{BACKBONE}.timm."
"""Before timm's names in the keys of a ``TimmBackbone``."""


def is_for_timm_backbone(state: Mapping[str, Any], model: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is timm's, and most of the backbone in ``model`` is in it.

    Args:
        state: of a file.
        model: of a detector.
    """
    names = _names(model)
    return bool(names) and 2 * len(names.keys() & {_plain(key) for key in state}) > len(names)


def convert_timm_classifier(
    state: Mapping[str, Any], model: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights of a classifier of timm under the keys of a detector on its feature extractor.

    Args:
        state: of the classifier.
        model: of the detector.
        source: named in errors.

    Returns:
        {key of the detector: weights}, and {key of the classifier: why it is left out}.

    Raises:
        CheckpointError: weights of the backbone are missing or have other shapes.
    """
    names = _names(model)
    weights: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    problems: list[str] = []
    for key, value in state.items():
        ours = names.get(_plain(key))
        if ours is None:
            counts = key.endswith("num_batches_tracked")
            dropped[key] = "nothing learned" if counts else "behind the last feature map"
        elif not isinstance(value, Tensor) or value.shape != model[ours].shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            problems.append(f"{key}: expected {tuple(model[ours].shape)}, found {found}")
        else:
            weights[ours] = value
    found_names = {_plain(key) for key in state}
    problems += [
        f"{ours[len(TIMM) :]} is missing"
        for name, ours in names.items()
        if name not in found_names and not ours.endswith("num_batches_tracked")
    ]
    if problems:
        raise CheckpointError(
            "\n".join(
                [
                    f"{source} does not fit the backbone, a network of timm; of its "
                    f"{len(names)} tensors these differ:",
                    *(f"    {problem}" for problem in listed(problems)),
                    "Give the weights of the model that the backbone's name says",
                ]
            )
        )
    return weights, dropped


def _names(model: Mapping[str, Any]) -> dict[str, str]:
    """{what the keys of the classifier and of its feature extractor have in common: ours}.

    The extractor is the classifier, the classifier under the name "model" or "body", or it has its
    layers, and those of its sequences under names such as "stages_0" instead of "stages.0".
    """
    keys = {key[len(TIMM) :]: key for key in model if key.startswith(TIMM)}
    for whole in ("model.", "body."):
        if all(name.startswith(whole) for name in keys):
            keys = {name[len(whole) :]: key for name, key in keys.items()}
    return {_plain(name): key for name, key in keys.items()}


def _plain(key: str) -> str:
    return key.replace(".", "_")
