"""The head of the COCO models: two towers of four blocks on P3 to P7."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

LEVELS = ["p3", "p4", "p5", "p6", "p7"]


def coco_head(head, norm="GN", **options):
    return L(head)(
        input_shape=[ShapeSpec(channels=256)] * 5,
        num_classes="${..num_classes}",
        conv_dims=[256] * 4,
        norm=norm,
        **options,
    )
