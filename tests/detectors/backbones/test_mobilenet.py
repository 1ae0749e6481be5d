"""MobileNetV2 against torchvision's."""

from __future__ import annotations

import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import FPN
from torch import nn

from dense_kd.detectors import MobileNetV2
from helpers.tiny_backbones import batch_norms, mobilenet, randomize_norms

STAGE_ENDS = {"res2": 4, "res3": 7, "res4": 14, "res5": 19}  # of torchvision's features


@pytest.fixture(scope="module")
def classifier() -> torchvision.models.MobileNetV2:
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v2(weights=None).eval()
    randomize_norms(model)
    return model


def features_of(classifier) -> dict[str, torch.Tensor]:
    state = classifier.state_dict()
    return {key: value for key, value in state.items() if not key.startswith("classifier.")}


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (97, 130)])
def test_its_maps_are_those_of_torchvision(classifier, size):
    model = MobileNetV2().eval()
    model.load_state_dict(features_of(classifier))  # strictly: every key has its place
    images = torch.randn(2, 3, *size)
    outputs = model(images)
    assert list(outputs) == list(STAGE_ENDS) == list(model.output_shape())
    for (name, end), channels in zip(STAGE_ENDS.items(), (24, 32, 96, 1280)):
        shape = model.output_shape()[name]
        assert torch.equal(outputs[name], classifier.features[:end](images))
        assert shape.channels == channels
        height, width = (-(-length // shape.stride) for length in size)
        assert outputs[name].shape == (2, channels, height, width)


@torch.no_grad()
def test_res5_can_be_the_last_block(classifier):
    model = MobileNetV2(last_conv=False).eval()
    report = model.load_state_dict(features_of(classifier), strict=False)
    assert not report.missing_keys
    assert {key[: len("features.18.")] for key in report.unexpected_keys} == {"features.18."}
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(model(images)["res5"], classifier.features[:18](images))
    assert model.output_shape()["res5"].channels == 320


@torch.no_grad()
def test_frozen_batch_norm_computes_the_same(classifier):
    model = MobileNetV2(norm="FrozenBN").train()
    report = model.load_state_dict(features_of(classifier), strict=False)
    assert not report.missing_keys
    assert all(key.endswith("num_batches_tracked") for key in report.unexpected_keys)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(
        model(images)["res5"], classifier.features(images), rtol=1e-4, atol=1e-5
    )


def test_layers_that_no_output_needs_are_left_out():
    model = mobilenet(out_features=["res2", "res4"])
    outputs = model(torch.randn(1, 3, 64, 64))
    assert list(outputs) == ["res2", "res4"] and len(model.features) == 14
    assert list(model.output_shape()) == ["res2", "res4"]
    sum(x.sum() for x in outputs.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("freeze_at, end", list(enumerate([0, 2, 4, 7, 14, 18])))
def test_frozen_stages_are_fixed_and_the_others_are_not(freeze_at, end):
    model = mobilenet(freeze_at=freeze_at).train()
    frozen = {p for layer in model.features[:end] for p in layer.parameters()}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    outputs = model(torch.randn(2, 3, 64, 64))
    if end < len(model.features):
        sum(x.square().mean() for x in outputs.values()).backward()
    for parameter in model.parameters():
        assert parameter.requires_grad != (parameter in frozen)
        assert (parameter.grad is None) == (parameter in frozen)
    after = model.state_dict()
    for name, norm in batch_norms(model).items():
        is_frozen = int(name.split(".")[1]) < end
        assert isinstance(norm, FrozenBatchNorm2d) == is_frozen, name
        key = f"{name}.running_var"
        assert torch.equal(before[key], after[key]) == is_frozen, name


def test_a_pyramid_on_it_pads_to_its_largest_stride():
    model = mobilenet()
    fpn = FPN(model, ["res3", "res4", "res5"], 4)
    assert fpn.size_divisibility == 32
    levels = fpn(torch.randn(1, 3, 96, 64))
    assert [tuple(x.shape[1:]) for x in levels.values()] == [(4, 12, 8), (4, 6, 4), (4, 3, 2)]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"norm": ""}, "norm='': MobileNetV2's convolutions have no bias"),
        ({"norm": None}, "norm=None"),
        ({"out_features": ["res6"]}, r"out_features=\['res6'\]: expected one or more of \['res2'"),
        ({"out_features": []}, r"out_features=\[\]"),
        ({"freeze_at": 6}, "freeze_at=6: expected 0"),
        ({"negative_slope": -0.1}, "negative_slope=-0.1: expected a number"),
        ({"negative_slope": "0.1"}, "negative_slope='0.1'"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        mobilenet(**options)


def test_a_slope_makes_every_activation_a_leaky_relu(classifier):
    backbone = MobileNetV2(negative_slope=0.1)
    kinds = [type(module) for module in backbone.modules()]
    assert nn.ReLU6 not in kinds
    slopes = [m.negative_slope for m in backbone.modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes == [0.1] * sum(isinstance(m, nn.ReLU6) for m in classifier.features.modules())
    backbone.load_state_dict(features_of(classifier))
