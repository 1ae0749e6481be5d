"""Checkpoints of mmdetection: recognised, converted, or refused with what does not fit."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Callable

import pytest
import torch
from torch import Tensor

from dense_kd import BCKD, Distiller, MethodSet, Teacher
from dense_kd.checkpoint import (
    AtomicCheckpointer,
    CheckpointError,
    convert_mmdet,
    is_mmdet,
    read_weights,
)
from helpers.mmdet_models import CONFIGS, checkpoint_path, detector

Weights = dict[str, Tensor]


def stored(name: str) -> Weights:
    """The state dict of a checkpoint of ``tests/golden``."""
    return dict(torch.load(checkpoint_path(name), weights_only=True)["state_dict"])


def saved(folder, weights: Weights) -> str:
    path = str(folder / "mmdet.pth")
    torch.save({"meta": {"mmdet_version": "3.3.0"}, "state_dict": weights}, path)
    return path


@pytest.mark.parametrize(
    "content, expected",
    [
        ({"state_dict": {"bbox_head.conv_cls.bias": 0}, "meta": {}}, True),
        ({"state_dict": {"student.backbone.conv1.weight": 0}}, True),
        ({"state_dict": {"conv1.weight": 0}}, False),
        ({"state_dict": {}}, False),
        ({"model": {"backbone.bottom_up.stem.conv1.weight": 0}}, False),
        ({"backbone.conv1.weight": 0}, False),
        ([], False),
    ],
)
def test_what_is_a_checkpoint_of_mmdetection(content, expected):
    assert is_mmdet(content) is expected


@pytest.mark.parametrize("name", list(CONFIGS))
def test_every_key_has_its_place(name):
    converted = read_weights(checkpoint_path(name))
    constants = ("num_batches_tracked", "integral.project")
    learned = [key for key in stored(name) if not key.endswith(constants)]
    assert len(converted) == len(learned)
    model = detector(name, norm="FrozenBN")
    expected = {k: v for k, v in model.state_dict().items() if k not in model.optional_buffers}
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in expected.items()}


def named(tower: list[str], *others: str) -> Weights:
    """One-element tensors under names of a ``bbox_head``; both towers have the keys ``tower``."""
    keys = [f"{branch}_convs.{key}" for branch in ("cls", "reg") for key in tower]
    predictions = [f"{name}.{kind}" for name in others for kind in ("weight", "bias")]
    keys = keys + [k.replace(".weight", "") if k.count(".") > 1 else k for k in predictions]
    return {f"bbox_head.{key}": torch.zeros(1) for key in keys}


SCALES = {f"bbox_head.scales.{level}.scale": torch.ones(()) for level in range(5)}
WITH_NORM = ["0.conv.weight", "0.gn.weight", "0.gn.bias", "3.conv.weight"]
HEADS: dict[str, tuple[Weights, dict[str, str]]] = {
    "ATSS": (
        {**named(WITH_NORM, "atss_cls", "atss_reg", "atss_centerness"), **SCALES},
        {
            "cls_convs.3.conv.weight": "cls_subnet.9.weight",
            "reg_convs.0.gn.bias": "bbox_subnet.1.bias",
            "atss_centerness.bias": "ctrness.bias",
            "scales.4.scale": "scales.4.scale",
        },
    ),
    "GFL": (
        {
            **named(WITH_NORM, "gfl_cls", "gfl_reg"),
            **SCALES,
            "bbox_head.integral.project": torch.arange(17.0),
        },
        {"gfl_cls.weight": "cls_score.weight", "gfl_reg.bias": "bbox_pred.bias"},
    ),
    "DDOD": (
        {
            **named([*WITH_NORM, "0.conv.conv_offset.weight"], "atss_cls", "atss_reg", "atss_iou"),
            **SCALES,
        },
        {
            "cls_convs.0.conv.conv_offset.weight": "cls_subnet.0.conv_offset.weight",
            "atss_iou.weight": "iou_pred.weight",
        },
    ),
    "AutoAssign": (
        {
            **named([*WITH_NORM, "0.conv.bias"], "conv_cls", "conv_reg", "conv_centerness"),
            **SCALES,
            "bbox_head.center_prior.mean": torch.zeros(1),
            "bbox_head.center_prior.sigma": torch.zeros(1),
        },
        {
            "reg_convs.0.conv.bias": "bbox_subnet.0.bias",
            "center_prior.sigma": "center_prior.sigma",
        },
    ),
    "FCOS before mmdet 2.0": (
        {**named(WITH_NORM, "fcos_cls", "fcos_reg", "fcos_centerness"), **SCALES},
        {
            "fcos_cls.weight": "cls_score.weight",
            "fcos_reg.weight": "bbox_pred.weight",
            "fcos_centerness.weight": "ctrness.weight",
        },
    ),
    "RetinaNet with one anchor": (
        named(["0.conv.weight", "0.conv.bias", "3.conv.bias"], "retina_cls", "retina_reg"),
        {
            "cls_convs.3.conv.bias": "cls_subnet.6.bias",
            "retina_cls.weight": "cls_score.weight",
        },
    ),
}


@pytest.mark.parametrize("name", list(HEADS))
def test_the_keys_of_heads(name):
    theirs, expected = HEADS[name]
    numbered = {key: torch.full((4,), float(i)) for i, key in enumerate(theirs)}
    ours = convert_mmdet(numbered)
    assert len(ours) == len([key for key in theirs if "integral" not in key])
    for source, target in expected.items():
        assert torch.equal(ours[f"head.{target}"], numbered[f"bbox_head.{source}"])


def test_the_number_of_laterals_gives_the_levels():
    convs = {
        f"neck.{kind}.{i}.conv.bias": torch.full((1,), float(i))
        for kind, count in (("lateral_convs", 4), ("fpn_convs", 5))
        for i in range(count)
    }
    ours = convert_mmdet(convs)
    assert ours["backbone.fpn_lateral2.bias"] == 0
    assert ours["backbone.fpn_output5.bias"] == 3
    assert ours["backbone.top_block.p6.bias"] == 4


def test_anchors_become_size_major():
    """Channels of (ratio, scale, class) become channels of (size, ratio, class)."""
    weights = {
        "bbox_head.retina_cls.bias": torch.arange(18.0),
        "bbox_head.retina_reg.bias": torch.arange(36.0),
    }
    ours = convert_mmdet(weights)
    order = [0, 3, 6, 1, 4, 7, 2, 5, 8]
    assert ours["head.cls_score.bias"].tolist() == [2 * a + c for a in order for c in range(2)]
    assert ours["head.bbox_pred.bias"].tolist() == [4 * a + c for a in order for c in range(4)]


def without(*parts: str) -> Callable[[Weights], Weights]:
    return lambda weights: {k: v for k, v in weights.items() if not any(p in k for p in parts)}


def with_key(key: str, value: Tensor | None = None) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, key: torch.zeros(1) if value is None else value}


REFUSED: dict[str, tuple[str, str, Callable[[Weights], Weights], list[str]]] = {
    # what: (file, our detector, change of the file, parts of the message)
    "another detector": (
        "det_fcos", "det_retinanet", dict,
        ["does not fit RetinaNet", "unexpected", "head.ctrness.weight", "of another shape",
         "head.cls_score.weight: expected (45, 32, 3, 3), found (5, 32, 3, 3)"],
    ),
    "another variant": (
        "det_fcos_tricks", "det_fcos", dict, ["8 unexpected", "head.cls_subnet.0.bias"],
    ),
    "missing keys": (
        "det_fcos", "det_fcos", without("conv_centerness", "layer3.1.bn2.running_var"),
        ["3 missing", "head.ctrness.weight", "backbone.bottom_up.res4.1.conv2.norm.running_var"],
    ),
    "missing box prediction": (
        "det_retinanet", "det_retinanet", without("retina_reg"),
        ["2 missing", "head.bbox_pred.weight"],
    ),
    "another shape": (
        "det_retinanet", "det_retinanet",
        with_key("neck.lateral_convs.1.conv.bias", torch.zeros(7)),
        ["of another shape", "backbone.fpn_lateral4.bias: expected (32,), found (7,)"],
    ),
    "not finite": (
        "det_retinanet", "det_retinanet",
        with_key("bbox_head.reg_convs.2.conv.bias", torch.full((32,), float("nan"))),
        ["not finite", "head.bbox_subnet.4.bias"],
    ),
    "unknown keys": (
        "det_retinanet", "det_retinanet", with_key("rpn_head.rpn_cls.weight"),
        ["1 of its 157 keys are unknown", "rpn_head.rpn_cls.weight", "ResNet"],
    ),
    "a deep stem": (
        "det_retinanet", "det_retinanet", with_key("backbone.stem.0.weight"),
        ["backbone.stem.0.weight", "without a deep stem"],
    ),
    "keys of two heads": (
        "det_fcos", "det_fcos", with_key("bbox_head.gfl_cls.weight"),
        ["bbox_head.gfl_cls.weight", "the head of FCOS"],
    ),
    "unknown head": (
        "det_fcos", "det_fcos", without("conv_cls", "conv_reg", "conv_centerness"),
        ["bbox_head.scales.0.scale", "a head of none of these"],
    ),
    "other anchors": (
        "det_retinanet", "det_retinanet",
        with_key("bbox_head.retina_reg.weight", torch.zeros(24, 32, 3, 3)),
        ["24 channels for the boxes", "3 ratios x 3 scales"],
    ),
    "no tensor": (
        "det_retinanet", "det_retinanet", with_key("backbone.conv1.weight", "conv"),
        ["'backbone.conv1.weight' is a str, expected a tensor"],
    ),
    "a distiller": (
        "det_fcos", "det_fcos",
        lambda weights: {f"{p}.{k}": v for p in ("student", "teacher") for k, v in weights.items()},
        ["checkpoint of a distiller", "171 keys under 'student.'", "--part student"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(REFUSED))
def test_a_file_that_does_not_fit_is_refused_with_its_name_and_the_keys(tmp_path, what):
    name, ours, change, parts = REFUSED[what]
    path = saved(tmp_path, change(stored(name)))
    teacher = Teacher(detector(ours), path)
    with pytest.raises(CheckpointError) as error:
        teacher.load()
    for part in ["mmdet.pth", *parts]:
        assert part in str(error.value)
    assert not teacher.loaded


def test_a_checkpoint_of_mmdetections_training_is_refused_with_what_to_do(tmp_path):
    """It holds the logger's objects; those of the model zoo do not."""
    path = tmp_path / "epoch_12.pth"
    torch.save({"state_dict": stored("det_fcos"), "message_hub": Fraction(1, 2)}, path)
    with pytest.raises(CheckpointError, match="epoch_12.pth holds a fractions.Fraction.*state_di"):
        read_weights(str(path))


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_student_starts_from_it(tmp_path, name):
    expected = Teacher(detector(name), checkpoint_path(name))
    expected.load()
    model = detector(name)
    AtomicCheckpointer(model, str(tmp_path)).load(checkpoint_path(name))
    loaded = model.state_dict()
    for key, value in expected.model.state_dict().items():
        assert torch.equal(loaded[key], value), key


def test_a_distillers_student_starts_from_it(tmp_path):
    path = checkpoint_path("det_fcos")
    model = Distiller(
        student=detector("det_fcos"),
        teacher=Teacher(detector("det_fcos"), path),
        methods=MethodSet(bckd=BCKD()),
    )
    AtomicCheckpointer(model, str(tmp_path)).load(path)
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in read_weights(path).items())


def test_an_unknown_head_is_named_when_a_student_would_start_from_it(tmp_path):
    path = saved(tmp_path, with_key("bbox_head.reg_conf.0.weight")(stored("det_fcos")))
    with pytest.raises(CheckpointError, match=r"mmdet\.pth(.|\n)*reg_conf\.0\.weight"):
        AtomicCheckpointer(detector("det_fcos"), str(tmp_path)).load(path)


def test_resuming_reads_our_own_checkpoints_as_ever(tmp_path):
    model = detector("det_fcos")
    AtomicCheckpointer(model, str(tmp_path)).save("model", iteration=3)
    other = detector("det_fcos")
    extra = AtomicCheckpointer(other, str(tmp_path)).resume_or_load("", resume=True)
    assert extra["iteration"] == 3
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in other.state_dict().items())
    assert not any(re.match("bbox_head|neck", key) for key in other.state_dict())
