"""The backbones of configs/common/models: architecture, options, a detector on each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from dense_kd import get_config_file
from dense_kd.detectors import (
    FrozenStatisticsBatchNorm,
    LastLevelP6P7OptionalReLU,
    timm_normalisation,
)
from helpers.builders import assert_close, instances

MODELS = Path(get_config_file("quickstart/student.py")).parent.parent / "common" / "models"
resnet_fpn, resnext101_fpn, mobilenet_v2_fpn, swin_t_fpn = LazyConfig.load(
    str(MODELS / "backbones.py"),
    keys=("resnet_fpn", "resnext101_fpn", "mobilenet_v2_fpn", "swin_t_fpn"),
)
timm_fpn, small_timm_fpn, lite_input = LazyConfig.load(
    str(MODELS / "timm_backbones.py"),
    keys=("timm_fpn", "small_timm_fpn", "EFFICIENTNET_LITE_INPUT"),
)
(fcos,) = LazyConfig.load(str(MODELS / "fcos.py"), keys=("fcos",))
BACKBONES = {
    "resnet-18": lambda source="p5", **kw: resnet_fpn(18, source, **kw),
    "mobilenet-v2": lambda source="p5", **kw: mobilenet_v2_fpn(source, **kw),
    "swin-t": lambda source="p5", **kw: swin_t_fpn(source, **kw),
}
NO_BATCH_NORM = {"norm": "BN", "freeze_at": 2}
RESNETS = {
    "18": (lambda **kw: resnet_fpn(18, "res5", **kw), (BasicBlock, [2, 2, 2, 2])),
    "34": (lambda **kw: resnet_fpn(34, "res5", **kw), (BasicBlock, [3, 4, 6, 3])),
    "50": (
        lambda **kw: resnet_fpn(50, "res5", stride_in_1x1=False, **kw),
        (Bottleneck, [3, 4, 6, 3]),
    ),
    "101": (
        lambda **kw: resnet_fpn(101, "res5", stride_in_1x1=False, **kw),
        (Bottleneck, [3, 4, 23, 3]),
    ),
    "101 32x4d": (
        lambda **kw: resnext101_fpn(32, "res5", **kw),
        (Bottleneck, [3, 4, 23, 3], 1000, False, 32, 4),
    ),
    "101 64x4d": (
        lambda **kw: resnext101_fpn(64, "res5", **kw),
        (Bottleneck, [3, 4, 23, 3], 1000, False, 64, 4),
    ),
}


def of_detectron2(key: str) -> str:
    """The name in detectron2's ResNet of a parameter of torchvision's."""
    key = re.sub(r"^(conv1|bn1)", r"stem.\1", key)
    key = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", key)
    key = key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    return re.sub(r"bn(\d)", r"conv\1.norm", key)


def weights_of(classifier: nn.Module) -> dict[str, torch.Tensor]:
    items = classifier.state_dict().items()
    return {of_detectron2(key): value for key, value in items if not key.startswith("fc.")}


@pytest.mark.parametrize("name", RESNETS)
def test_resnets_have_the_parameters_of_torchvision(name):
    config, arguments = RESNETS[name]
    with torch.device("meta"):
        model = instantiate(config(norm="BN", freeze_at=0).bottom_up)
        classifier = torchvision.models.ResNet(*arguments)
    ours = {key: value.shape for key, value in model.state_dict().items()}
    assert ours == {key: value.shape for key, value in weights_of(classifier).items()}


@torch.no_grad()
@pytest.mark.parametrize("name", ["18", "50"])
def test_resnets_compute_what_torchvision_computes(name):
    config, arguments = RESNETS[name]
    torch.manual_seed(0)
    classifier = torchvision.models.ResNet(*arguments).eval()
    model = instantiate(config(norm=FrozenStatisticsBatchNorm, freeze_at=0).bottom_up)
    model.load_state_dict(weights_of(classifier))
    x = images = torch.randn(1, 3, 64, 64)
    for layer in (classifier.conv1, classifier.bn1, classifier.relu, classifier.maxpool):
        x = layer(x)
    outputs = model(images)
    for stage in (2, 3, 4, 5):
        x = getattr(classifier, f"layer{stage - 1}")(x)
        if stage > 2:
            assert_close(outputs[f"res{stage}"], x, 1e-5, f"res{stage}")


@pytest.mark.parametrize(
    "name, classifier",
    [("mobilenet-v2", torchvision.models.mobilenet_v2), ("swin-t", torchvision.models.swin_t)],
)
def test_weights_of_a_classifier_fit_a_detector(name, classifier):
    config = fcos(18)
    config.backbone = BACKBONES[name](**({"norm": "BN"} if name == "mobilenet-v2" else {}))
    config.backbone.bottom_up.freeze_at = 0
    with torch.device("meta"):
        prefix = "backbone.bottom_up."
        weights = {prefix + k: v for k, v in classifier(weights=None).state_dict().items()}
        model = instantiate(config)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    features = {key for key in weights if ".features." in key}
    assert all(shapes[key] == weights[key].shape for key in features)
    missing = {key for key in shapes if key.startswith(prefix)} - features
    norms = {f"{prefix}norm{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")}
    assert missing == (norms if name == "swin-t" else set())


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("source, relu", [("res5", False), ("p5", True), ("p5", False)])
def test_extra_levels_have_the_source_and_the_relu_that_are_asked_for(name, source, relu):
    with torch.device("meta"):
        fpn = instantiate(BACKBONES[name](source, relu_before_p7=relu))
        levels = fpn(torch.zeros(1, 3, 64, 64))
    assert list(levels) == ["p3", "p4", "p5", "p6", "p7"]
    assert fpn.top_block.in_feature == source
    assert type(fpn.top_block) is (LastLevelP6P7 if relu else LastLevelP6P7OptionalReLU)
    assert getattr(fpn.top_block, "relu", True) == relu


def test_res5_of_mobilenet_can_be_the_last_block():
    with torch.device("meta"):
        fpn = instantiate(mobilenet_v2_fpn("res5", last_conv=False))
    assert fpn.top_block.p6.in_channels == fpn.bottom_up.output_shape()["res5"].channels == 320


@pytest.mark.parametrize("name", BACKBONES)
def test_a_detector_on_each_has_five_levels_and_gradients_everywhere(name):
    torch.manual_seed(0)
    config = fcos(18)
    config.backbone = BACKBONES[name]()
    model = instantiate(config)
    image = torch.randint(0, 255, (3, 128, 128))
    truth = instances((128, 128), [[4, 4, 60, 50], [20, 10, 120, 110]], [1, 3])
    with torch.no_grad():
        dense = model.run(model.preprocess_image([{"image": image}]))
    sides = [128 // stride for stride in (8, 16, 32, 64, 128)]
    assert dense.strides == [8, 16, 32, 64, 128]
    assert [tuple(x.shape) for x in dense.features] == [(1, 256, side, side) for side in sides]

    losses = model([{"image": image, "instances": truth}])
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)


@pytest.mark.parametrize("norm", ["FrozenBN", FrozenStatisticsBatchNorm, "BN", "SyncBN"], ids=str)
@pytest.mark.parametrize("name", ["resnet-18", "mobilenet-v2"])
def test_a_norm_survives_the_dump_of_a_config(name, norm, tmp_path):
    config = BACKBONES[name](norm=norm, fpn_norm=norm, freeze_at=0)
    LazyConfig.save(config, str(tmp_path / "config.yaml"))
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]  # and no pickle
    with torch.device("meta"):
        model = instantiate(LazyConfig.load(str(tmp_path / "config.yaml")))
    kind = {
        "FrozenBN": FrozenBatchNorm2d,
        "BN": nn.BatchNorm2d,
        "SyncBN": nn.SyncBatchNorm,
    }.get(norm, norm)
    for part in (model.bottom_up, model.fpn_lateral3, model.fpn_output5):
        kinds = {type(m) for m in part.modules() if "BatchNorm" in type(m).__name__}
        assert len(kinds) == 1 and issubclass(kinds.pop(), kind)


def test_one_override_changes_every_norm_of_a_resnet():
    config = resnet_fpn(50, "p5", freeze_at=0)
    config.bottom_up.stem.norm = "SyncBN"
    with torch.device("meta"):
        model = instantiate(config)
    norms = [type(m) for m in model.modules() if "BatchNorm" in type(m).__name__]
    assert norms == [nn.SyncBatchNorm] * 53


@pytest.mark.parametrize("name, options", [("test_resnet", {}), ("test_convnext", NO_BATCH_NORM)])
def test_a_detector_on_a_network_of_timm_has_five_levels_and_gradients_everywhere(name, options):
    pytest.importorskip("timm")
    torch.manual_seed(0)
    config = fcos(18)
    config.backbone = timm_fpn(name, **options)
    model = instantiate(config)
    image = torch.randint(0, 255, (3, 128, 128))
    truth = instances((128, 128), [[4, 4, 60, 50], [20, 10, 120, 110]], [1, 3])
    losses = model([{"image": image, "instances": truth}])
    sum(losses.values()).backward()
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)
    assert list(model.backbone.output_shape()) == ["p3", "p4", "p5", "p6", "p7"]


def test_the_input_of_efficientnet_lite_is_what_timm_says_of_each():
    pytest.importorskip("timm")
    for size in (0, 1, 2):
        assert timm_normalisation(f"tf_efficientnet_lite{size}") == lite_input


def test_a_small_pyramid_on_a_network_of_timm_has_three_levels():
    pytest.importorskip("timm")
    with torch.device("meta"):
        shapes = instantiate(small_timm_fpn("test_resnet", 8)).output_shape()
    assert {k: (s.channels, s.stride) for k, s in shapes.items()} == {
        "p3": (8, 8),
        "p4": (8, 16),
        "p5": (8, 32),
    }


def test_groups_without_bottlenecks_are_refused():
    with pytest.raises(ValueError, match="depth=18, num_groups=32, width_per_group=64: only depth"):
        resnet_fpn(18, "p5", num_groups=32)
