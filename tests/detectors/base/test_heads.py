"""TowerHead: taps, resuming from them, and detectron2's RetinaNetHead underneath."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from torch import Tensor, nn

from dense_kd.detectors import HeadOutputs, TowerHead
from helpers.builders import (
    atss_config,
    autoassign_config,
    ddod_config,
    fcos_config,
    gfl_config,
    group_norm_8,
    tiny_atss,
    tiny_autoassign,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)

DEPTH = 3
ALL_TAPS = [(branch, depth) for branch in ("cls", "bbox") for depth in range(DEPTH + 1)]

BUILDERS = {
    "TowerHead": tiny_retinanet,
    "FCOSHead": tiny_fcos,
    "ATSSHead": tiny_atss,
    "GFLHead": tiny_gfl,
    "AutoAssignHead": tiny_autoassign,
}


def make_head(kind: str, **options) -> TowerHead:
    return BUILDERS[kind](depth=DEPTH, **options).head


def features(requires_grad: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 16, size, size + 1, generator=generator).requires_grad_(requires_grad)
        for size in (8, 4, 2)
    ]


def assert_equal(actual: HeadOutputs, expected: HeadOutputs) -> None:
    assert len(expected.logits) == 3 == len(expected.deltas or expected.distribution)
    for name in ("logits", "deltas", "quality", "distribution"):
        ours, theirs = getattr(actual, name), getattr(expected, name)
        assert len(ours) == len(theirs) in (0, 3)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs)), name


HEADS = pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("TowerHead", {}),
        ("TowerHead", {"norm": group_norm_8}),
        ("TowerHead", {"norm": "BN"}),
        ("FCOSHead", {}),
        ("FCOSHead", {"head": {"centerness_on": "cls", "level_scales": True}}),
        ("FCOSHead", {"head": {"conv_bias": False}}),
        ("ATSSHead", {}),
        ("ATSSHead", {"head": {"quality": "iou"}}),
        ("GFLHead", {}),
        ("AutoAssignHead", {}),
    ],
    ids=[
        "plain",
        "GN",
        "BN",
        "FCOS",
        "FCOS with scales",
        "FCOS without conv bias",
        "ATSS",
        "ATSS with IoU",
        "GFL",
        "AutoAssign",
    ],
)


@HEADS
def test_resume_equals_run_at_every_depth(kind: str, options: dict):
    head = make_head(kind, **options).eval()
    expected, taps = head.run(features(), ALL_TAPS)
    for depth in range(DEPTH + 1):
        resumed = head.resume({"cls": taps["cls", depth], "bbox": taps["bbox", depth]}, depth)
        assert_equal(resumed, expected)


@HEADS
def test_resume_takes_a_depth_per_branch(kind: str, options: dict):
    head = make_head(kind, **options).eval()
    expected, taps = head.run(features(), ALL_TAPS)
    for cls, bbox in itertools.product(range(DEPTH + 1), repeat=2):
        maps = {"cls": taps["cls", cls], "bbox": taps["bbox", bbox]}
        assert_equal(head.resume(maps, {"cls": cls, "bbox": bbox}), expected)


@pytest.mark.parametrize("conv_dims", [[], [16, 0], [-1], ["16"]])
def test_a_tower_needs_a_block_and_blocks_need_channels(conv_dims: list):
    with pytest.raises(ValueError, match=rf"conv_dims={re.escape(str(conv_dims))}: expected the c"):
        TowerHead(
            input_shape=[ShapeSpec(channels=16, stride=8)],
            num_classes=4,
            num_anchors=1,
            conv_dims=conv_dims,
        )


def test_a_head_needs_a_level():
    with pytest.raises(ValueError, match="input_shape is empty"):
        TowerHead(input_shape=[], num_classes=4, num_anchors=1, conv_dims=[16])


@pytest.mark.parametrize("kind", sorted(BUILDERS.keys() - {"TowerHead"}))
def test_every_head_says_that_it_needs_a_tower(kind: str):
    with pytest.raises(ValueError, match=r"conv_dims=\[\]: expected the channels"):
        BUILDERS[kind](depth=0)


@HEADS
def test_asking_for_taps_does_not_change_the_predictions(kind: str, options: dict):
    head = make_head(kind, **options).eval()
    assert_equal(head.run(features(), ALL_TAPS)[0], head.run(features())[0])


def test_only_the_taps_that_were_asked_for_are_kept():
    head = make_head("TowerHead")
    assert head.run(features())[1] == {}
    taps = head.run(features(), [("bbox", 2)])[1]
    assert list(taps) == [("bbox", 2)]
    assert [tap.shape for tap in taps["bbox", 2]] == [f.shape for f in features()]


@pytest.mark.parametrize("norm", ["", group_norm_8])
def test_taps_are_the_outputs_of_blocks_after_their_relu(norm):
    head = make_head("TowerHead", norm=norm)
    layers = 3 if norm else 2
    _, taps = head.run(features(), ALL_TAPS)
    for branch, subnet in (("cls", head.cls_subnet), ("bbox", head.bbox_subnet)):
        for depth in range(1, DEPTH + 1):
            for level, feature in enumerate(features()):
                block = subnet[: depth * layers]
                assert isinstance(block[-1], nn.ReLU)
                assert torch.equal(taps[branch, depth][level], block(feature))
            assert min(tap.min() for tap in taps[branch, depth]) == 0


@pytest.mark.parametrize("kind", ["TowerHead", "FCOSHead"])
def test_a_tap_before_the_relu_gives_that_after_it(kind):
    before = [(f"{branch}_pre_relu", depth) for branch in ("cls", "bbox") for depth in (1, 2, 3)]
    expected, after = make_head(kind).run(features(), ALL_TAPS)
    outputs, taps = make_head(kind).run(features(), before)
    assert list(taps) == before
    for name, depth in before:
        for level, feature in enumerate(taps[name, depth]):
            assert feature.min() < 0
            assert torch.equal(feature.relu(), after[name.removesuffix("_pre_relu"), depth][level])
    assert all(torch.equal(a, b) for a, b in zip(outputs.logits, expected.logits))


def test_the_tap_of_depth_zero_is_the_feature_of_the_pyramid():
    inputs = features()
    _, taps = make_head("TowerHead").run(inputs, [("cls", 0), ("bbox", 0)])
    for branch in ("cls", "bbox"):
        assert all(tap is feature for tap, feature in zip(taps[branch, 0], inputs))


@pytest.mark.parametrize("kind", list(BUILDERS))
def test_resume_of_a_frozen_head_gives_gradient_to_the_taps_only(kind: str):
    head = make_head(kind).eval().requires_grad_(False)
    inputs = features(requires_grad=True)
    outputs = head.resume({"cls": inputs, "bbox": inputs}, 1)
    maps = [*outputs.logits, *outputs.deltas, *outputs.quality, *outputs.distribution]
    sum(m.square().sum() for m in maps).backward()
    assert all(feature.grad.abs().max() > 0 for feature in inputs)
    assert all(parameter.grad is None for parameter in head.parameters())


def test_resume_gives_no_gradient_to_the_blocks_it_skips():
    head = make_head("TowerHead")
    inputs = features(requires_grad=True)
    outputs = head.resume({"cls": inputs, "bbox": inputs}, {"cls": 2, "bbox": 3})
    sum(m.sum() for m in [*outputs.logits, *outputs.deltas]).backward()
    reached = {name for name, p in head.named_parameters() if p.grad is not None}
    assert reached == {
        f"{name}.{kind}"
        for name in ("cls_subnet.4", "cls_score", "bbox_pred")
        for kind in ("weight", "bias")
    }


def test_batch_norm_of_each_level_is_used_when_resuming():
    head = make_head("TowerHead", norm="BN").eval()
    generator = torch.Generator().manual_seed(1)
    for name, buffer in head.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
    expected, taps = head.run(features(), ALL_TAPS)
    maps = {"cls": taps["cls", 1], "bbox": taps["bbox", 2]}
    for _ in range(2):  # whatever ran before must not shift the levels
        assert_equal(head.resume(maps, {"cls": 1, "bbox": 2}), expected)


@pytest.mark.parametrize(
    "tap", [("cls", 4), ("bbox", -1), ("reg", 1), ("cls_pre_relu", 0), ("cls_pre_relu", 4)]
)
def test_a_tap_that_the_head_has_not_is_refused(tap):
    with pytest.raises(ValueError, match=rf"tap \('{tap[0]}', {tap[1]}\).*'cls', 'bbox'.*to 3"):
        make_head("TowerHead").run(features(), [tap])


@pytest.mark.parametrize("depth", [4, -1, {"cls": 1, "bbox": 9}])
def test_resuming_after_the_last_block_is_refused(depth):
    with pytest.raises(ValueError, match=r"TowerHead has the branches .* 0 \(input\) to 3"):
        make_head("TowerHead").resume({"cls": features(), "bbox": features()}, depth)


@pytest.mark.parametrize("branches", [["cls"], ["cls", "reg"], ["cls", "bbox", "iou"]])
def test_resuming_without_exactly_both_branches_is_refused(branches: list[str]):
    with pytest.raises(ValueError, match="resume needs a tap of each branch"):
        make_head("TowerHead").resume({branch: features() for branch in branches}, 1)


HEAD_ARGUMENTS = {
    "input_shape": [ShapeSpec(channels=16)] * 3,
    "num_classes": 5,
    "num_anchors": 2,
    "conv_dims": [16, 24],
    "prior_prob": 0.02,
}


@pytest.mark.parametrize("norm", ["", group_norm_8, "BN"], ids=["none", "GN", "BN"])
def test_parameters_and_forward_equal_detectron2s_head(norm):
    ours = TowerHead(norm=norm, **HEAD_ARGUMENTS)
    stock = RetinaNetHead(norm=norm, **HEAD_ARGUMENTS)
    shapes = [
        {name: value.shape for name, value in head.state_dict().items()} for head in (ours, stock)
    ]
    assert shapes[0] == shapes[1]
    assert torch.equal(ours.cls_score.bias, stock.cls_score.bias)
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    ours.load_state_dict(stock.state_dict(), strict=True)
    outputs, expected = ours(features()), stock(features())
    assert len(outputs) == len(expected) == 2
    for maps, references in zip(outputs, expected):
        assert len(maps) == len(references) == 3
        assert all(torch.equal(a, b) for a, b in zip(maps, references))


def test_equal_seeds_initialise_as_detectron2s_head():
    heads = []
    for cls in (TowerHead, RetinaNetHead):
        torch.manual_seed(0)
        heads.append(cls(**HEAD_ARGUMENTS).state_dict())
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[1])


@pytest.mark.parametrize(
    ("config", "score", "box_bias"),
    [
        (fcos_config(), 0.01, 0.0),
        (fcos_config(head={"reg_max": 8, "prior_prob": 0.1}), 0.1, 0.0),
        (atss_config(), 0.01, 0.0),
        (ddod_config(), 0.01, 0.0),
        (gfl_config(), 0.01, 0.0),
        (autoassign_config(), 0.02, 4.0),
    ],
    ids=["FCOS", "FCOS of distributions", "ATSS", "DDOD", "GFL", "AutoAssign"],
)
def test_a_new_head_has_small_weights_and_scores_of_its_prior(config, score: float, box_bias):
    head = instantiate(config).head
    for name, layer in head.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        deviation = 0.0 if name.endswith("conv_offset") else 0.01
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.25), name
        start = {"cls_score": torch.tensor(score).logit().item(), "bbox_pred": box_bias}
        if layer.bias is not None:
            assert layer.bias.tolist() == pytest.approx([start.get(name, 0.0)] * len(layer.bias))


def test_the_depth_and_channels_of_the_towers_are_known():
    head = TowerHead(**HEAD_ARGUMENTS)
    assert head.depth == 2 and head.tower_channels == [16, 16, 24]
    assert (head.num_classes, head.num_anchors, head.num_levels) == (5, 2, 3)
    _, taps = head.run(features(), [("cls", 0), ("cls", 1), ("cls", 2)])
    assert [taps["cls", depth][0].shape[1] for depth in range(3)] == head.tower_channels


def test_convolutions_before_a_norm_can_go_without_bias():
    head = TowerHead(norm=group_norm_8, conv_bias=False, **HEAD_ARGUMENTS)
    names = set(dict(head.named_parameters()))
    assert "cls_subnet.0.bias" not in names and "bbox_subnet.3.bias" not in names
    assert {"cls_subnet.1.bias", "cls_score.bias", "bbox_pred.bias"} <= names
    assert all(m.isfinite().all() for maps in head(features()) for m in maps)
    kept = TowerHead(conv_bias=False, **HEAD_ARGUMENTS)  # no norm that could replace the bias
    assert kept.cls_subnet[0].bias is not None
