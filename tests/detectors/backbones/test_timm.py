"""Networks of timm as backbones."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import FPN
from torch import nn

from dense_kd.detectors import FrozenStatisticsBatchNorm, TimmBackbone, timm_normalisation
from dense_kd.detectors.backbones.replaced_norms import replace_batch_norms
from dense_kd.errors import MissingExtraError
from dense_kd.timm_models import require_timm
from helpers.builders import assert_close
from helpers.missing_extras import hide
from helpers.tiny_backbones import batch_norms, randomize_norms

timm = pytest.importorskip("timm")

# One of each way in which timm makes feature maps; all are small.
NETWORKS = [
    "tf_efficientnet_lite0",  # a class of its own, batch norms with activations in them
    "test_resnet",  # its layers
    "test_convnext",  # its layers under other names, no batch norm
    "hrnet_w18_small",  # branches
]
STRIDES = {"res3": 8, "res4": 16, "res5": 32}


def backbone(name: str = "test_resnet", **options) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(name=name, **options)


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_its_maps_are_those_of_timm_by_stride(name):
    model = backbone(name).eval()
    torch.manual_seed(0)
    features = timm.create_model(name, features_only=True).eval()
    images = torch.randn(2, 3, 64, 96)
    outputs = model(images)
    assert list(outputs) == list(STRIDES) == list(model.output_shape())
    expected = dict(zip(features.feature_info.reduction(), features(images)))
    for output, stride in STRIDES.items():
        shape = model.output_shape()[output]
        assert torch.equal(outputs[output], expected[stride])
        assert (shape.stride, shape.channels) == (stride, outputs[output].shape[1])


@torch.no_grad()
def test_images_need_not_be_multiples_of_the_stride():
    model = backbone("tf_efficientnet_lite0").eval()
    sides = {name: tuple(x.shape[2:]) for name, x in model(torch.randn(1, 3, 97, 130)).items()}
    assert sides == {"res3": (13, 17), "res4": (7, 9), "res5": (4, 5)}


def test_a_pyramid_on_it_has_gradients_everywhere():
    fpn = FPN(backbone(out_features=["res2", "res3", "res4", "res5"]), list(STRIDES), 4)
    assert fpn.size_divisibility == 32
    levels = fpn(torch.randn(2, 3, 64, 96))
    sum(x.square().sum() for x in levels.values()).backward()
    assert all(p.grad is not None for p in fpn.parameters())


@pytest.mark.parametrize("name", ["test_resnet", "tf_efficientnet_lite0"])
def test_layers_that_no_output_needs_are_not_trained(name):
    model = backbone(name, out_features=["res2", "res4"])
    outputs = model(torch.randn(2, 3, 64, 64))
    assert list(outputs) == ["res2", "res4"]
    sum(x.square().sum() for x in outputs.values()).backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    last = {"test_resnet": "layer4", "tf_efficientnet_lite0": "blocks.6"}[name]
    assert not any(p.requires_grad for n, p in model.timm.named_parameters() if n.startswith(last))


STEM = {"tf_efficientnet_lite0": ["conv_stem", "bn1", "blocks.0"], "test_resnet": ["conv1", "bn1"]}
ENDS = {
    "tf_efficientnet_lite0": [["blocks.1"], ["blocks.2"], ["blocks.3", "blocks.4"]],
    "test_resnet": [["layer1"], ["layer2"], ["layer3"]],
}


@pytest.mark.parametrize("freeze_at", range(6))
@pytest.mark.parametrize("name", STEM)
def test_frozen_stages_are_fixed_and_the_others_are_not(name, freeze_at):
    model = backbone(name, freeze_at=freeze_at)
    stages = [STEM[name], *ENDS[name], [""]]
    frozen = tuple(part for stage in stages[:freeze_at] for part in stage)
    before = copy.deepcopy(model.timm.state_dict())
    outputs = model(torch.randn(2, 3, 64, 64))
    if freeze_at < 5:
        sum(x.square().mean() for x in outputs.values()).backward()
    for key, parameter in model.timm.named_parameters():
        assert (
            parameter.requires_grad
            == (parameter.grad is not None)
            == (not key.startswith(frozen) if frozen else True)
        ), key
    after = model.timm.state_dict()
    for key, norm in batch_norms(model.timm).items():
        fixed = bool(frozen) and key.startswith(frozen)
        assert isinstance(norm, FrozenBatchNorm2d) == fixed, key
        assert torch.equal(before[f"{key}.running_var"], after[f"{key}.running_var"]) == fixed, key


def test_frozen_blocks_drop_no_paths():
    model = backbone("test_convnext", freeze_at=3, options={"drop_path_rate": 0.9})
    images = torch.randn(2, 3, 64, 64)
    first, second = model(images), model(images)
    assert torch.equal(first["res3"], second["res3"])
    assert not torch.equal(first["res5"], second["res5"])
    model.eval()
    model.train()
    assert torch.equal(model(images)["res3"], first["res3"])


NORMS = ["FrozenBN", FrozenStatisticsBatchNorm, "BN", "SyncBN", "naiveSyncBN"]


@torch.no_grad()
@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("name", ["test_resnet", "tf_efficientnet_lite0"])
def test_a_norm_computes_what_that_of_timm_does(name, norm):
    torch.manual_seed(0)
    features = timm.create_model(name, features_only=True).eval()
    randomize_norms(features)
    model = backbone(name, norm=norm).eval()
    report = model.timm.load_state_dict(features.state_dict(), strict=False)
    assert not report.missing_keys
    assert all(key.endswith("num_batches_tracked") for key in report.unexpected_keys)
    images = torch.randn(1, 3, 64, 64)
    expected = dict(zip(features.feature_info.reduction(), features(images)))
    for output, feature in model(images).items():
        assert_close(feature, expected[STRIDES[output]], 1e-4, output)


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_a_norm_trains_what_it_says(norm):
    model = backbone("tf_efficientnet_lite0", norm=norm)
    before = copy.deepcopy(model.state_dict())
    sum(x.square().mean() for x in model(torch.randn(2, 3, 64, 64)).values()).backward()
    moves = norm in ("BN", "SyncBN", "naiveSyncBN")
    assert len(batch_norms(model)) == 49 - 1  # its classifier has the last one
    for key, module in batch_norms(model).items():
        statistics = f"{key}.running_var"
        assert torch.equal(before[statistics], model.state_dict()[statistics]) != moves
        trained = isinstance(getattr(module, "weight", None), nn.Parameter)
        assert trained == (norm != "FrozenBN")
        assert module.eps == 1e-3  # as TensorFlow's


def test_a_replaced_norm_keeps_epsilon_momentum_and_what_looks_at_it():
    seen = []
    network = nn.Sequential(nn.BatchNorm2d(2, eps=0.5, momentum=0.3))
    network[0].register_forward_hook(lambda *call: seen.append(call[2].shape))
    network[0].weight.requires_grad_(False)
    replace_batch_norms(network, "SyncBN")
    assert (network[0].eps, network[0].momentum) == (0.5, 0.3)
    assert not network[0].weight.requires_grad and network[0].bias.requires_grad
    network(torch.zeros(1, 2, 3, 3))
    assert seen == [(1, 2, 3, 3)]


def test_the_normalisation_is_that_of_the_weights_in_values_of_pixels():
    assert timm_normalisation("tf_efficientnet_lite0") == {
        "pixel_mean": [127.5] * 3,
        "pixel_std": [127.5] * 3,
        "input_format": "RGB",
    }
    found = timm_normalisation("resnet18.a1_in1k")
    assert found["pixel_mean"] == [123.675, 116.28, 103.53]
    assert found["pixel_std"] == [58.395, 57.12, 57.375]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "resnet_18"}, r"no model 'resnet_18'; did you mean .*resnet18"),
        ({"name": "hf-hub:timm/resnet18"}, "no model 'hf-hub:timm/resnet18'"),
        ({"name": "test_resnet.of_nobody"}, "test_resnet.of_nobody.*of_nobody"),
        ({"name": "test_vit"}, r"feature maps of strides \[16, 16, 16\], none of \[8, 32\]; take"),
        ({"name": "levit_128s"}, r"none of \[8\]; take another model, or give out_features of"),
        ({"name": "mambaout_femto"}, r"makes maps \[\(1, 16, 24, 48\).* expected maps \[\(1, 48,"),
        # Before 1.0.31, timm refuses to make it.
        ({"name": "coat_lite_tiny"}, "cannot (be run on an image of 64 x 96|make a network of)"),
        ({"out_features": ["res6"]}, r"out_features=\['res6'\]: expected one or more of"),
        ({"out_features": []}, r"out_features=\[\]"),
        ({"freeze_at": 6}, "freeze_at=6: expected 0"),
        (
            {"name": "test_convnext", "freeze_at": 1},
            r"freeze_at=1: test_convnext has no feature map of stride 2.*one of \[2, 3, 4, 5\]",
        ),
        ({"name": "test_convnext", "norm": "FrozenBN"}, "norm='FrozenBN': test_convnext has no"),
        ({"options": {"pretrained": True}}, "options has 'pretrained'.*train.init_checkpoint"),
        ({"options": {"widths": 3}}, "timm cannot make a network .*widths"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        backbone(**options)


def test_weights_that_there_are_not_have_no_normalisation():
    with pytest.raises(ValueError, match="no model 'resnet_18'; did you mean"):
        timm_normalisation("resnet_18")


def test_without_timm_the_extra_is_named(monkeypatch):
    hide("timm", monkeypatch)
    for ask in (require_timm, backbone, lambda: timm_normalisation("resnet18")):
        with pytest.raises(MissingExtraError, match=r"pip install 'dense_kd\[timm\]'"):
            ask()
