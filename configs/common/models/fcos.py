"""FCOS on COCO, as in detectron2 main: centre sampling, normalised distances, GIoU."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from dense_kd.detectors import FCOS, FCOSHead

from .backbones import MSRA_INPUT, resnet_fpn


def fcos(depth):
    return L(FCOS)(
        backbone=resnet_fpn(depth, "p5"),
        head=L(FCOSHead)(
            input_shape=[ShapeSpec(channels=256)] * 5,
            num_classes="${..num_classes}",
            conv_dims=[256] * 4,
            norm="GN",
        ),
        head_in_features=["p3", "p4", "p5", "p6", "p7"],
        num_classes=80,
        **MSRA_INPUT,
    )
