"""Our detectors with the sizes and options of mmdetection's in ``tests/golden``."""

from __future__ import annotations

from typing import Any

from builders import GOLDEN, golden, group_norm_8
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from detectron2.structures import ImageList

from dense_kd import get_config_file
from dense_kd.detectors import (
    ATSS,
    DDOD,
    FCOS,
    GFL,
    ATSSHead,
    AutoAssign,
    AutoAssignHead,
    DDODHead,
    DenseDetector,
    DistanceCoder,
    FCOSHead,
    GFLHead,
    LastLevelP6P7OptionalReLU,
    RetinaNet,
)

NUM_CLASSES = 5
IN_FEATURES = ["res3", "res4", "res5"]
LEVELS = ["p3", "p4", "p5", "p6", "p7"]
PIXELS = {"pixel_mean": [0.0, 0.0, 0.0], "pixel_std": [1.0, 1.0, 1.0]}  # inputs are normalised


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


def retinanet(norm: Any = "BN", **overrides: Any) -> RetinaNet:
    """For ``det_retinanet``."""
    make = LazyConfig.load(get_config_file("common/models/retinanet.py"), "mmdet_retinanet")
    config = make(fpn(resnet18(norm), 32, "res5", relu=False))
    config.head.update(input_shape=[ShapeSpec(channels=32)] * 5, conv_dims=[32] * 4)
    config.update({"num_classes": NUM_CLASSES, "input_format": "BGR", **PIXELS, **overrides})
    return instantiate(config)


def fcos(tricks: bool, norm: Any = "BN", **overrides: Any) -> FCOS:
    """For ``det_fcos``, or ``det_fcos_tricks``."""
    coder = DistanceCoder(activation="exp", normalize_by_size=False)
    return FCOS(
        backbone=fpn(resnet18(norm), 32, "p5", relu=True),
        head=FCOSHead(
            input_shape=[ShapeSpec(channels=32)] * 5,
            num_classes=NUM_CLASSES,
            conv_dims=[32] * 4,
            norm=group_norm_8,
            level_scales=True,
            conv_bias=tricks,
            centerness_on="bbox" if tricks else "cls",
        ),
        head_in_features=LEVELS,
        box2box_transform=DistanceCoder() if tricks else coder,
        num_classes=NUM_CLASSES,
        score="product",
        clip_before_nms=True,
        test_score_thresh=0.05,
        test_nms_thresh=0.6 if tricks else 0.5,
        **{**PIXELS, **overrides},
    )


def autoassign(norm: Any = "BN", **overrides: Any) -> AutoAssign:
    """For ``det_autoassign``."""
    backbone = fpn(resnet18(norm), 32, "res5", relu=True)
    return one_per_location(AutoAssign, AutoAssignHead, backbone, **overrides)


def square_anchors(detector: type, head: type, norm: Any = "BN", **overrides: Any) -> DenseDetector:
    """For ``det_atss``, ``det_ddod`` and ``det_gfl``."""
    backbone = fpn(resnet18(norm), 32, "p5", relu=False)
    return one_per_location(detector, head, backbone, **overrides)


def one_per_location(detector: type, head: type, backbone: FPN, **overrides: Any) -> DenseDetector:
    return detector(
        backbone=backbone,
        head=head(
            input_shape=[ShapeSpec(channels=32)] * 5,
            num_classes=NUM_CLASSES,
            conv_dims=[32] * 4,
            norm=group_norm_8,
        ),
        head_in_features=LEVELS,
        num_classes=NUM_CLASSES,
        **{**PIXELS, **overrides},
    )


DETECTORS = {
    "det_retinanet": retinanet,
    "det_fcos": lambda **options: fcos(False, **options),
    "det_fcos_tricks": lambda **options: fcos(True, **options),
    "det_atss": lambda **options: square_anchors(ATSS, ATSSHead, **options),
    "det_ddod": lambda **options: square_anchors(DDOD, DDODHead, **options),
    "det_gfl": lambda **options: square_anchors(GFL, GFLHead, **options),
    "det_autoassign": autoassign,
}
"""{name of a checkpoint in tests/golden: builder of our detector for it}"""

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


def detector(name: str, **options: Any) -> DenseDetector:
    return DETECTORS[name](**options)
