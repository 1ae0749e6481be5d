"""Our COCO configs of mmdetection's detectors against the released configs, which the golden
checkpoints carry."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import BottleneckBlock

from dense_kd import get_config
from dense_kd.detectors import DenseDetector, FrozenStatisticsBatchNorm
from dense_kd.detectors.base.images import ImageInput
from helpers.builders import GOLDEN
from helpers.mmdet_models import CONFIGS


@pytest.fixture(params=list(CONFIGS), scope="module")
def pair(request) -> tuple[dict[str, Any], Any, DenseDetector]:
    """The released config, our config, and our model."""
    meta = torch.load(GOLDEN / f"{request.param}.pth", weights_only=True)["meta"]
    cfg = get_config(CONFIGS[request.param])
    return json.loads(meta["model_cfg"]), cfg, instantiate(cfg.model)


def test_images_are_normalised_as_the_original_does(pair):
    theirs, cfg, model = pair
    expected = theirs["data_preprocessor"]
    assert model.image_input == ImageInput(
        input_format="RGB" if expected["bgr_to_rgb"] else "BGR",
        mean=tuple(expected["mean"]),
        std=tuple(expected["std"]),
    )
    assert cfg.dataloader.test.mapper.image_format == model.input_format
    assert model.backbone.size_divisibility == expected["pad_size_divisor"]


def test_detections_are_selected_as_the_original_does(pair):
    test, model = pair[0]["test_cfg"], pair[2]
    assert model.test_score_thresh == test["score_thr"]
    assert model.test_topk_candidates == test["nms_pre"]
    assert model.test_nms_thresh == test["nms"]["iou_threshold"]
    assert model.max_detections_per_image == test["max_per_img"]
    assert model.clip_before_nms


def test_the_backbone_is_in_the_style_of_the_original_and_trains_the_same_parameters(pair):
    expected, backbone = pair[0]["backbone"], pair[2].backbone.bottom_up
    blocks = [m for m in backbone.modules() if isinstance(m, BottleneckBlock)]
    in_1x1 = expected["style"] == "caffe"
    assert all((block.conv1.stride == (2, 2)) <= in_1x1 for block in blocks)
    assert sum(block.conv1.stride == (2, 2) for block in blocks) == (3 if in_1x1 else 0)
    assert expected["frozen_stages"] == 1 and expected["norm_eval"]
    for frozen in (backbone.stem, backbone.res2):
        assert not any(p.requires_grad for p in frozen.parameters())
    kind = FrozenStatisticsBatchNorm if expected["norm_cfg"]["requires_grad"] else FrozenBatchNorm2d
    norms = [block.conv2.norm for block in blocks[3:]]
    assert norms and all(type(norm) is kind for norm in norms)


def test_the_extra_levels_are_made_as_in_the_original(pair):
    neck, top_block = pair[0]["neck"], pair[2].backbone.top_block
    assert neck["start_level"] == 1 and neck["num_outs"] == 5
    source = {"on_input": "res5", True: "res5", "on_output": "p5"}[neck["add_extra_convs"]]
    assert top_block.in_feature == source
    features = torch.randn(1, top_block.p6.in_channels, 8, 8, generator=torch.manual_seed(0))
    p6, p7 = top_block(features)
    before = p6.relu() if neck.get("relu_before_extra_convs") else p6
    assert p6.min() < 0 and torch.equal(p7, top_block.p7(before))


def test_the_head_has_the_depth_and_the_anchors_of_the_original(pair):
    theirs, model = pair[0]["bbox_head"], pair[2]
    strides = (theirs.get("anchor_generator") or theirs)["strides"]
    assert model.strides == [s[0] if isinstance(s, list) else s for s in strides]
    assert model.head.depth == theirs["stacked_convs"]
    if "anchor_generator" in theirs:
        generator = theirs["anchor_generator"]
        scales = generator.get("scales")
        if scales is None:
            per_octave = generator["scales_per_octave"]
            first = generator["octave_base_scale"]
            scales = [first * 2 ** (i / per_octave) for i in range(per_octave)]
        assert model.num_anchors == len(scales) * len(generator["ratios"])
        of_level = next(iter(model.anchor_generator.cell_anchors))
        areas = {round(a.item() ** 0.5, 1) for a in (of_level[:, 2:] - of_level[:, :2]).prod(dim=1)}
        assert areas == {round(scale * model.strides[0], 1) for scale in scales}
