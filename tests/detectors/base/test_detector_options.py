"""Every option of every detector and head refuses what it cannot mean, in Python as in a config."""

from __future__ import annotations

import functools
import math
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from detectron2.config import instantiate
from omegaconf import OmegaConf

from dense_kd.arguments import parameters_of
from dense_kd.detectors import DistanceCoder, from_detectron2
from dense_kd.engine.checks import detectors
from helpers.builders import (
    atss_config,
    autoassign_config,
    ddod_config,
    fcos_config,
    gfl_config,
    retinanet_config,
)

CONFIGS = {
    "retinanet": lambda: from_detectron2(retinanet_config()),
    "fcos": fcos_config,
    "atss": atss_config,
    "gfl": gfl_config,
    "ddod": ddod_config,
    "autoassign": autoassign_config,
}
NEVER: dict[str, tuple[Any, ...]] = {
    "float": (math.nan, math.inf, -math.inf, "much", True, [1.0]),
    "int": (-1, 0.5, math.nan, "many", True, [1]),
    "bool": ("false", 0, 1, None),
    "list[int]": ([], [0], [16, -16], [0.5], ["16"], [True], "16", 16),
}
"""{annotation: values that no option of such an annotation may have}."""
SIGNED = ("box_bias",)
UNWEIGHTED = ("focal_loss_alpha",)
"""What -1 switches off."""
OTHERS = {
    **dict.fromkeys(
        ("num_classes", "test_topk_candidates", "max_detections_per_image"), (0, 100.0)
    ),
    "loss_normalizer": (0.0,),
    "padding_multiple": (0,),
    "prior_prob": (0, 1, 2),
}
SHARES = (
    "cls_alpha",
    "focal_loss_alpha",
    "loss_normalizer_momentum",
    "reg_alpha",
    "test_nms_thresh",
    "test_score_thresh",
)


FIXED = {
    "autoassign": (
        "level_scales",
        "loss_normalizer",
        "loss_normalizer_momentum",
        "loss_normalizer_sync",
        "num_anchors",
    )
}
"""What a detector and its head give to the classes that they are made of."""


def options_of(detector: str) -> Iterator[tuple[str, str, str]]:
    """(part of the config, name, annotation) of each option of a detector and its head."""
    config = CONFIGS[detector]()
    for part, node in (("model", config), ("model.head", config.head)):
        for name, parameter in parameters_of(node._target_).items():
            if name not in FIXED.get(detector, ()):
                yield part, name, str(parameter.annotation).removesuffix(" | None")


def wrong_values(name: str, annotation: str) -> tuple[Any, ...]:
    values = NEVER.get(annotation, ())
    if annotation == "float" and name not in SIGNED:
        values += (-1e-9,) if name in UNWEIGHTED else (-1.0, -1e-9)
    return values + OTHERS.get(name, (1.5,) if name in SHARES else ())


@functools.cache
def built(detector: str, part: str) -> dict[str, Any]:
    """The arguments of a detector or its head, whose parts are not built for each case again."""
    config = CONFIGS[detector]()
    node = config if part == "model" else config.head
    return {name: instantiate(value) for name, value in node.items()}


def build(detector: str, part: str, **option: Any) -> None:
    arguments = {**built(detector, part), **option}
    arguments.pop("_target_")(**arguments)


@functools.cache
def pickled(detector: str) -> bytes:
    """The config of a run, which is quicker to read than to write."""
    config = {"model": CONFIGS[detector]()}
    return pickle.dumps(OmegaConf.create(config, flags={"allow_objects": True}))


def problems(detector: str, part: str, **option: Any) -> list[str]:
    config = pickle.loads(pickled(detector))
    for name, value in option.items():
        OmegaConf.update(config, f"{part}.{name}", value, force_add=True)
    return list(detectors.problems(config))


@pytest.mark.parametrize(
    ("detector", "part", "name", "annotation"),
    [
        pytest.param(detector, *option, id=f"{detector}: {option[0]}.{option[1]}")
        for detector in CONFIGS
        for option in options_of(detector)
        if wrong_values(*option[1:])
    ],
)
def test_what_an_option_cannot_mean_is_an_error_that_names_option_and_value(
    detector, part, name, annotation
):
    for value in wrong_values(name, annotation):
        with pytest.raises(ValueError, match="expected") as error:
            build(detector, part, **{name: value})
        assert str(error.value).startswith(f"{name}={value!r}: expected ")
        assert f"{part}.{error.value}" in problems(detector, part, **{name: value})


@pytest.mark.parametrize("detector", CONFIGS)
def test_the_default_of_every_option_may_be_given(detector):
    config = CONFIGS[detector]()
    for part, node in (("model", config), ("model.head", config.head)):
        defaults = {
            name: parameter.default
            for name, parameter in parameters_of(node._target_).items()
            if isinstance(parameter.default, (bool, int, float))
            and name not in (*node, *FIXED.get(detector, ()))
        }
        assert defaults
        build(detector, part, **defaults)
        assert problems(detector, part, **defaults) == []


@pytest.mark.parametrize(
    "options", [{"prior_scale": 0.0}, {"prior_scale": math.nan}, {"normalize_by_size": "no"}]
)
def test_a_distance_coder_refuses_what_its_options_cannot_mean(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.*: expected"):
        DistanceCoder(**options)


@pytest.mark.parametrize("detector", ["retinanet", "fcos", "atss", "ddod"])
def test_a_focal_loss_without_weights_of_classes_has_an_alpha_of_minus_1(detector: str):
    build(detector, "model", focal_loss_alpha=-1)
    assert problems(detector, "model", focal_loss_alpha=-1) == []
