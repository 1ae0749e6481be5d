"""The head of DDOD, and which heads the detector takes."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec

from dense_kd.detectors import DDOD, ATSSHead, DDODHead, DeformConv2d
from helpers.builders import NUM_CLASSES, batch, group_norm_8, tiny_atss, tiny_ddod


def head(conv_bias: bool = False) -> DDODHead:
    return DDODHead(
        input_shape=[ShapeSpec(channels=16)] * 3,
        num_classes=NUM_CLASSES,
        conv_dims=[32, 32],
        norm=group_norm_8,
        prior_prob=0.02,
        conv_bias=conv_bias,
    )


@pytest.mark.parametrize("conv_bias", [False, True])
def test_each_tower_begins_with_a_deformable_convolution(conv_bias: bool):
    fresh = head(conv_bias)
    for tower in (fresh.cls_subnet, fresh.bbox_subnet):
        assert isinstance(tower[0], DeformConv2d) and type(tower[3]) is torch.nn.Conv2d
        assert tower[0].conv_offset.weight.abs().sum() == 0
        assert tower[0].weight.shape == (32, 16, 3, 3)
        assert tower[0].weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert (tower[0].bias is not None) == conv_bias
    assert fresh.cls_score.bias.sigmoid().tolist() == pytest.approx([0.02] * NUM_CLASSES)
    assert fresh.quality_kind == "iou" and len(fresh.scales) == 3


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_pass_goes_on_from_its_taps(depth: int):
    model = tiny_ddod()
    dense = model.run(model.preprocess_image(batch()), [("cls", depth), ("bbox", depth)])
    taps = {branch: dense.taps[branch, depth] for branch in ("cls", "bbox")}
    outputs = model.head.resume(taps, depth)
    resumed = model.dense_pass(dense.features, outputs, dense.image_sizes)
    for name in ("logits", "deltas", "quality"):
        for ours, expected in zip(getattr(resumed, name), getattr(dense, name)):
            assert torch.equal(ours, expected), name


def test_any_head_with_an_iou_branch_will_do_and_no_other():
    options = {"num_classes": NUM_CLASSES, "pixel_mean": [0.0] * 3, "pixel_std": [1.0] * 3}
    shapes = {"input_shape": [ShapeSpec(channels=16)] * 3, "num_classes": NUM_CLASSES}
    plain = ATSSHead(**shapes, conv_dims=[16], norm=group_norm_8, quality="iou")
    model = DDOD(backbone=tiny_atss().backbone, head=plain, **options)
    assert all(loss.isfinite() for loss in model(batch("usual")).values())
    wrong = ATSSHead(**shapes, conv_dims=[16], norm=group_norm_8)
    with pytest.raises(ValueError, match="quality branch 'centerness': expected 'iou'"):
        DDOD(backbone=model.backbone, head=wrong, **options)
    with pytest.raises(ValueError, match="cost_rule='ota': expected one of"):
        DDOD(backbone=model.backbone, head=plain, cost_rule="ota", **options)
