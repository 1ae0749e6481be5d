"""The detectors of our COCO configs with the sizes of mmdetection's in ``tests/golden``."""

from __future__ import annotations

from typing import Any

from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from detectron2.structures import ImageList

from dense_kd import get_config
from dense_kd.detectors import DenseDetector, LastLevelP6P7OptionalReLU
from helpers.builders import GOLDEN, golden, golden_config, group_norm_8
from helpers.copies import built_once

IN_FEATURES = ["res3", "res4", "res5"]
LEVELS = ["p3", "p4", "p5", "p6", "p7"]


def resnet18(norm: Any = "BN") -> ResNet:
    """Two basic blocks per stage, 8 channels in the first."""
    stages = [
        ResNet.make_stage(
            BasicBlock,
            2,
            stride_per_block=[1 if stage == 0 else 2, 1],
            in_channels=8 * 2 ** max(stage - 1, 0),
            out_channels=8 * 2**stage,
            norm=norm,
        )
        for stage in range(4)
    ]
    return ResNet(BasicStem(3, 8, norm=norm), stages, out_features=IN_FEATURES)


def resnet50(stride_in_1x1: bool) -> ResNet:
    """Bottleneck blocks, 16 channels in the first stage."""
    stages = [
        ResNet.make_stage(
            BottleneckBlock,
            num_blocks,
            stride_per_block=[1 if stage == 0 else 2] + [1] * (num_blocks - 1),
            in_channels=4 if stage == 0 else 8 * 2**stage,
            bottleneck_channels=4 * 2**stage,
            out_channels=16 * 2**stage,
            stride_in_1x1=stride_in_1x1,
            norm="FrozenBN",
        )
        for stage, num_blocks in enumerate([3, 4, 6, 3])
    ]
    return ResNet(BasicStem(3, 4, norm="FrozenBN"), stages, out_features=IN_FEATURES)


def fpn(bottom_up: ResNet, channels: int, extra_levels_from: str, relu: bool) -> FPN:
    in_channels = bottom_up.output_shape()["res5"].channels
    if extra_levels_from == "p5":
        in_channels = channels
    top_block = LastLevelP6P7OptionalReLU(in_channels, channels, extra_levels_from, relu=relu)
    return FPN(bottom_up, IN_FEATURES, channels, top_block=top_block)


CONFIGS = {
    "det_retinanet": "retinanet/mmdet_r50_1x.py",
    "det_fcos": "fcos/mmdet_r50_1x.py",
    "det_fcos_tricks": "fcos/mmdet_tricks_r50_1x.py",
    "det_atss": "atss/r50_1x.py",
    "det_gfl": "gfl/r50_1x.py",
    "det_ddod": "ddod/r50_1x.py",
    "det_autoassign": "autoassign/r50_1x.py",
}
"""{name of a checkpoint in tests/golden: our COCO config of its detector}"""


@built_once
def detector(name: str, norm: Any = "BN", **overrides: Any) -> DenseDetector:
    """The model of our COCO config as small as in ``tests/golden``.

    Args:
        name: one of :data:`CONFIGS`.
        norm: of the backbone.
        overrides: arguments of the model.
    """
    model = get_config(CONFIGS[name]).model
    extra_levels = model.backbone.top_block
    relu = extra_levels._target_ is LastLevelP6P7  # the other class has none
    model.backbone = fpn(resnet18(norm), 32, extra_levels.in_feature, relu)
    head = golden_config(name, "model_cfg")["bbox_head"]
    model.head.update(
        input_shape=[ShapeSpec(channels=head["in_channels"])] * len(LEVELS),
        conv_dims=[head["feat_channels"]] * head["stacked_convs"],
    )
    if model.head.get("norm"):
        model.head.norm = group_norm_8
    pixels = {"pixel_mean": [0.0, 0.0, 0.0], "pixel_std": [1.0, 1.0, 1.0], "input_format": "BGR"}
    # Inputs are normalised.
    model.update({"num_classes": head["num_classes"], **pixels, **overrides})
    return instantiate(model)


INPUTS = {
    "det_retinanet": "batch_imagenet_rgb",
    "det_fcos": "batch_caffe1_bgr",
    "det_fcos_tricks": "batch_caffe2_bgr",
    "det_atss": "batch_imagenet_rgb",
    "det_ddod": "batch_imagenet_rgb",
    "det_gfl": "batch_imagenet_rgb",
    "det_autoassign": "batch_caffe1_bgr",
}


def checkpoint_path(name: str) -> str:
    return str(GOLDEN / f"{name}.pth")


def stored_images(name: str) -> ImageList:
    """The batch that mmdetection's detector ``name`` has seen."""
    data = golden(f"{name}_data")
    sizes = [tuple(data[f"img{i}/img_shape"].tolist()) for i in range(2)]
    return ImageList(golden("det_inputs")[INPUTS[name]], sizes)
