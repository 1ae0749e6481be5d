"""Detectors that train in minutes on a CPU: a narrow ResNet-18, levels P3 to P5, short towers."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher

from dense_kd.detectors import (
    ATSS,
    DDOD,
    FCOS,
    GFL,
    ATSSHead,
    AutoAssign,
    AutoAssignHead,
    DDODHead,
    FCOSHead,
    GFLHead,
    RetinaNet,
    TowerHead,
)


def small_backbone(width, channels):
    """A ResNet-18 whose first stage has `width` channels (64 in the original), and an FPN."""
    return L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=width, norm="BN"),
            stages=[
                L(ResNet.make_stage)(
                    block_class=BasicBlock,
                    num_blocks=2,
                    stride_per_block=[1 if stage == 0 else 2, 1],
                    in_channels=width * 2 ** max(stage - 1, 0),
                    out_channels=width * 2**stage,
                    norm="BN",
                )
                for stage in range(4)
            ],
            out_features=["res3", "res4", "res5"],
        ),
        in_features=["res3", "res4", "res5"],
        out_channels=channels,
    )


def small_detector(detector, head, width, num_classes=5, channels=64, head_options=None, **options):
    """Any detector with two blocks of GroupNorm in each tower."""
    return L(detector)(
        backbone=small_backbone(width, channels),
        head=L(head)(
            input_shape=[ShapeSpec(channels=channels)] * 3,
            num_classes="${..num_classes}",
            conv_dims=[channels] * 2,
            norm="GN",
            **(head_options or {}),
        ),
        head_in_features=["p3", "p4", "p5"],
        num_classes=num_classes,
        # The dataset's images are uint8 with a mid-grey mean.
        pixel_mean=[127.5, 127.5, 127.5],
        pixel_std=[64.0, 64.0, 64.0],
        **options,
    )


def small_fcos(width, **options):
    return small_detector(FCOS, FCOSHead, width, **options)


def small_atss(width, **options):
    return small_detector(ATSS, ATSSHead, width, **options)


def small_autoassign(width, **options):
    return small_detector(AutoAssign, AutoAssignHead, width, **options)


def small_ddod(width, **options):
    return small_detector(DDOD, DDODHead, width, **options)


def small_gfl(width, **options):
    return small_detector(GFL, GFLHead, width, **options)


def small_retinanet(width, **options):
    """Nine anchors per location, half as large as on COCO: the objects are small."""
    strides = [8, 16, 32]
    return small_detector(
        RetinaNet,
        TowerHead,
        width,
        head_options=dict(num_anchors=9),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[2.0 * stride * 2 ** (i / 3) for i in range(3)] for stride in strides],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=strides,
            offset=0.0,
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        anchor_matcher=L(Matcher)(
            thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
        **options,
    )
