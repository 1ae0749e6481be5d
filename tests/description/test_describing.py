"""Configs described in texts and numbers build what they build themselves."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from dense_kd.description import IndescribableError, build_described, describe
from dense_kd.description.allowed import ALLOWED
from helpers.configs import fresh, load, make_small, random_numbers_from_a_table

BUILT = [
    "atss/r50_1x.py",
    "autoassign/r50_1x.py",
    "ddod/r50_1x.py",
    "fcos/mmdet_tricks_r50_1x.py",
    "gfl/mobilenetv2_1x.py",
    "quickstart/retinanet.py",
    "retinanet/mmdet_swin_t_1x.py",
]


def detector(cfg):
    return cfg.model.get("student", cfg.model)


def targets(described) -> set[str]:
    if isinstance(described, dict):
        called = {described["_target_"]} if "_target_" in described else set()
        return called.union(*map(targets, described.values()))
    return set().union(*map(targets, described)) if isinstance(described, list) else set()


@pytest.mark.parametrize("name", [*BUILT, "bckd/gfl_r101_r50_1x.py", "gfl/voc_r50_1x.py"])
def test_detectors_and_resizing_of_the_configs_are_described_by_allowed_names(name):
    cfg = load(name)
    assert targets(describe(detector(cfg), "model")) <= ALLOWED.keys()
    resizing = describe(cfg.dataloader.test.mapper.augmentations, "augmentations")
    assert targets(resizing) <= ALLOWED.keys()


@pytest.mark.parametrize("name", BUILT)
def test_the_description_builds_what_the_config_builds(name):
    config = detector(fresh(name))
    make_small(config)
    described = json.loads(json.dumps(describe(config, "model")))
    with random_numbers_from_a_table():
        ours, expected = build_described(described, "model"), instantiate(config)
    assert repr(ours) == repr(expected)
    states = ours.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
    for module, other in zip(ours.modules(), expected.modules()):
        assert options(module) == options(other)


def options(module: nn.Module) -> dict:
    plain = (int, float, str, type)
    return {name: value for name, value in vars(module).items() if isinstance(value, plain)}


def test_instantiate_builds_the_same_of_it():
    config = detector(fresh("quickstart/retinanet.py"))
    described = OmegaConf.create(describe(config, "model"))
    assert repr(instantiate(described)) == repr(instantiate(config))


def test_references_are_replaced_by_what_they_refer_to():
    cfg = OmegaConf.create({"classes": 7, "model": {"a": "${classes}", "b": [{"c": "${...a}"}]}})
    assert describe(cfg.model, "model") == {"a": 7, "b": [{"c": 7}]}


def test_classes_shapes_and_subclasses_of_numbers_become_plain():
    config = L(nn.LayerNorm)(
        normalized_shape=[ShapeSpec(channels=3, stride=8)],
        eps=np.float64(0.5),
        norm=nn.BatchNorm2d,
        interp=Image.Resampling.BILINEAR,
        pair=(1, 2),
    )
    described = describe(config, "model")
    assert described == {
        "_target_": "torch.nn.LayerNorm",
        "normalized_shape": [
            {
                "_target_": "detectron2.layers.ShapeSpec",
                "channels": 3, "height": None, "width": None, "stride": 8,
            }
        ],
        "eps": 0.5,
        "norm": {"_target_": "dense_kd.description.named", "name": "torch.nn.BatchNorm2d"},
        "interp": 2,
        "pair": [1, 2],
    }  # fmt: skip
    assert type(described["eps"]) is float and type(described["interp"]) is int
    (shape,) = build_described(described["normalized_shape"], "shapes")
    assert shape == ShapeSpec(channels=3, stride=8)


def test_names_in_a_config_that_was_saved_are_those_of_its_classes():
    saved = {"_target_": "detectron2.modeling.FPN", "norm": "detectron2.modeling.FPN"}
    described = describe(OmegaConf.create(saved), "model")
    assert described == {
        "_target_": "detectron2.modeling.backbone.fpn.FPN",
        "norm": "detectron2.modeling.FPN",
    }
    gone = {"_target_": "a_package_that_is_gone.Backbone"}
    assert describe(gone, "model") == gone


@pytest.mark.parametrize("value", [torch.zeros(1), functools.partial(nn.ReLU), b"bytes"])
def test_objects_are_not_described(value):
    config = L(nn.ReLU)(inplace=[value])
    with pytest.raises(IndescribableError, match=r"model.inplace\[0\] is an object"):
        describe(config, "model")
