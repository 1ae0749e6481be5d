"""Checkpoints of torchvision: recognised, converted, or refused."""

from __future__ import annotations

import logging

import pytest
import torch
import torchvision
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from detectron2.modeling import ResNet
from detectron2.modeling.backbone.resnet import BasicStem
from torch import Tensor
from torchvision.models.resnet import BasicBlock

from dense_kd import Teacher, get_config_file
from dense_kd.checkpoint import (
    AtomicCheckpointer,
    CheckpointError,
    convert,
    convert_torchvision,
    read_weights,
    torchvision_model,
)
from dense_kd.checkpoint.layouts.torchvision import object_classes
from dense_kd.detectors import MobileNetV2, SwinTransformer
from helpers.builders import assert_close, fill_randomly, tiny_fcos

BODY = "backbone.bottom_up."


@pytest.mark.parametrize(
    "key, expected",
    [
        ("head.regression_head.bbox_ctrness.bias", "FCOS"),
        ("head.classification_head.cls_logits.bias", "RetinaNet"),
        ("backbone.body.conv1.weight", "another detector"),
        ("layer1.0.conv1.weight", "ResNet"),
        ("features.1.conv.0.0.weight", "MobileNetV2"),
        ("features.1.0.attn.relative_position_bias_table", "Swin Transformer"),
        ("features.0.weight", None),  # VGG
        ("backbone.bottom_up.stem.conv1.weight", None),
        ("backbone.layer1.0.conv1.weight", None),
        ("head.cls_score.weight", None),
    ],
)
def test_a_model_is_recognised_by_its_keys(key, expected):
    assert torchvision_model({key: torch.zeros(1)}) == expected


@pytest.mark.parametrize("content", [[], None, {"model": []}, {"model": {}, "iteration": 1}])
def test_what_holds_no_weights_is_not_torchvisions(content):
    assert convert(content, source="file") is None


def resnet(name: str) -> ResNet:
    if name == "resnet18":
        stages = ResNet.make_default_stages(18, norm="FrozenBN")
        return ResNet(BasicStem(norm="FrozenBN"), stages, out_features=["res3", "res5"])
    make = LazyConfig.load(get_config_file("common/models/backbones.py"), "resnet_fpn")
    options = {"num_groups": 32, "width_per_group": 4, "stride_in_1x1": False}
    return instantiate(make(50, "p5", **options).bottom_up)


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_a_resnet_is_the_same_function(name):
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    fill_randomly(theirs)
    conversion = convert(theirs.state_dict(), source=name)
    ours = resnet(name).eval()
    ours.load_state_dict({k[len(BODY) :]: v for k, v in conversion.weights.items()})
    assert {k for k, why in conversion.dropped.items() if why == "the classifier"} == {
        "fc.weight", "fc.bias",
    }  # fmt: skip
    assert "dropped: fc.weight, fc.bias (the classifier)" in conversion.table().splitlines()
    assert conversion.predictions == () and conversion.model == "ResNet"
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stem = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        res3 = theirs.layer2(theirs.layer1(stem))
        res5 = theirs.layer4(theirs.layer3(res3))
        maps = ours(image)
    assert_close(maps["res3"], res3, 1e-5, "res3")
    assert_close(maps["res5"], res5, 1e-5, "res5")


@pytest.mark.parametrize("name, ours", [("mobilenet_v2", MobileNetV2), ("swin_t", SwinTransformer)])
def test_the_features_of_a_classifier_keep_their_names(name, ours):
    theirs = getattr(torchvision.models, name)(weights=None).state_dict()
    conversion = convert({"model": theirs, "epoch": 3}, source=name)
    features = {k: v for k, v in theirs.items() if k.startswith("features.")}
    features = {k: v for k, v in features.items() if not k.endswith("num_batches_tracked")}
    assert list(conversion.weights) == [f"{BODY}{key}" for key in features]
    assert all(conversion.weights[f"{BODY}{key}"] is value for key, value in features.items())
    assert set(conversion.dropped) == set(theirs) - set(features)
    expected = {k for k in ours().state_dict() if k.startswith("features.")}
    assert set(features) == {k for k in expected if not k.endswith("num_batches_tracked")}


def test_the_91_outputs_of_coco_weights_are_the_ids_of_its_classes_in_detectron2s_order():
    ids = MetadataCatalog.get("coco_2017_val").thing_dataset_id_to_contiguous_id
    assert object_classes(91) == sorted(ids, key=ids.get)
    assert object_classes(91)[:12] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]
    assert object_classes(91)[-1] == 90 and len(object_classes(91)) == 80


def test_other_numbers_of_outputs_are_the_background_and_the_classes():
    assert object_classes(6) == [1, 2, 3, 4, 5]


def predictions(num_outputs: int, num_anchors: int = 9) -> dict[str, Tensor]:
    """The biases of RetinaNet's predictions, numbered."""
    return {
        "head.classification_head.cls_logits.bias": torch.arange(float(num_anchors * num_outputs)),
        "head.regression_head.bbox_reg.bias": torch.arange(4.0 * num_anchors),
    }


def test_anchors_become_size_major_and_the_background_goes():
    """Channels (ratio, size, class) become (size, ratio, class) without class 0."""
    order = [0, 3, 6, 1, 4, 7, 2, 5, 8]
    ours = convert_torchvision(predictions(3))
    assert ours["head.cls_score.bias"].tolist() == [3 * a + c for a in order for c in (1, 2)]
    assert ours["head.bbox_pred.bias"].tolist() == [4 * a + c for a in order for c in range(4)]


def test_a_model_that_was_trained_with_labels_from_0_keeps_its_classes():
    ours = convert_torchvision(predictions(3), background=False)
    assert ours["head.cls_score.bias"].tolist()[:6] == [0, 1, 2, 9, 10, 11]


def test_the_table_says_which_classes_went():
    lines = convert(predictions(91), source="file").table().splitlines()
    assert lines[-1].startswith("dropped: class outputs 0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83 ")


RENAMED = {
    # since torchvision 0.13: before
    "backbone.fpn.inner_blocks.1.0.weight": "backbone.fpn.inner_blocks.1.weight",
    "backbone.fpn.layer_blocks.2.0.bias": "backbone.fpn.layer_blocks.2.bias",
    "head.classification_head.conv.3.0.weight": "head.classification_head.conv.6.weight",
    "head.regression_head.conv.1.0.bias": "head.regression_head.conv.2.bias",
}


def test_names_of_old_releases_are_known():
    new = {key: torch.full((1,), float(i)) for i, key in enumerate(RENAMED)}
    new["backbone.fpn.inner_blocks.0.0.weight"] = torch.zeros(1)
    new["backbone.fpn.inner_blocks.2.0.weight"] = torch.zeros(1)
    ours = convert_torchvision(new)
    assert list(ours)[:4] == [
        "backbone.fpn_lateral4.weight",
        "backbone.fpn_output5.bias",
        "head.cls_subnet.6.weight",
        "head.bbox_subnet.2.bias",
    ]
    old = convert_torchvision({RENAMED.get(key, key): value for key, value in new.items()})
    assert list(old) == list(ours) and all(old[key] is ours[key] for key in ours)


def test_the_number_of_laterals_gives_the_levels():
    kinds = ("inner_blocks", "layer_blocks")
    keys = [f"backbone.fpn.{kind}.{i}.0.bias" for kind in kinds for i in range(4)]
    ours = convert_torchvision(
        {key: torch.zeros(1) for key in ["backbone.body.conv1.weight", *keys]}
    )
    levels = [f"backbone.fpn_{kind}{i}.bias" for kind in ("lateral", "output") for i in range(2, 6)]
    assert list(ours) == [f"{BODY}stem.conv1.weight", *levels]


REFUSED = {
    "Faster R-CNN": (
        {"backbone.body.conv1.weight": 0, "rpn.head.cls_logits.bias": 0},
        ["1 of its 2 keys are unknown", "rpn.head.cls_logits.bias", "another detector"],
    ),
    "a deep stem": (
        {"layer1.0.conv1.weight": 0, "conv1.0.weight": 0}, ["conv1.0.weight", "deep stem"],
    ),
    "other anchors": (predictions(3, num_anchors=6), ["24 channels", "3 ratios x 3 scales"]),
    "one class": (predictions(1), ["one class output", "--no-background"]),
    "no tensor": ({"layer1.0.conv1.weight": "x"}, ["is a str, expected a tensor"]),
}  # fmt: skip


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_is_not_known_is_refused_with_the_keys(tmp_path, what):
    weights, parts = REFUSED[what]
    weights = {k: torch.zeros(1) if isinstance(v, int) else v for k, v in weights.items()}
    torch.save(weights, tmp_path / "file.pth")
    with pytest.raises(CheckpointError) as error:
        read_weights(str(tmp_path / "file.pth"))
    for part in ["file.pth", *parts]:
        assert part in str(error.value)


def test_a_distillers_part_is_none_of_torchvisions():
    with pytest.raises(CheckpointError, match="file is a checkpoint of torchvision.*student"):
        convert(predictions(3), part="student", source="file")


@pytest.fixture
def imagenet_weights(tmp_path) -> str:
    model = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1])
    fill_randomly(model)
    torch.save(model.state_dict(), tmp_path / "resnet10.pth")
    return str(tmp_path / "resnet10.pth")


def test_a_students_backbone_starts_from_a_classifier_and_nothing_else_changes(
    tmp_path, imagenet_weights, caplog
):
    student = tiny_fcos(width=64)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        AtomicCheckpointer(student, str(tmp_path)).load(imagenet_weights)
    assert "not found in the model" not in caplog.text  # every tensor has gone somewhere
    theirs = torch.load(imagenet_weights, weights_only=True)
    after = student.state_dict()
    assert torch.equal(after[f"{BODY}stem.conv1.weight"], theirs["conv1.weight"])
    assert torch.equal(
        after[f"{BODY}res5.0.shortcut.norm.running_var"],
        theirs["layer4.0.downsample.1.running_var"],
    )
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed == {key for key in after if key.startswith(BODY)}


def test_a_classifier_is_no_teacher(imagenet_weights):
    teacher = Teacher(tiny_fcos(width=64), imagenet_weights)
    with pytest.raises(CheckpointError, match="resnet10.pth holds a backbone alone.*no detector"):
        teacher.load()
    assert not teacher.loaded
