"""ATSS on COCO, as in mmdetection; with quality="iou", the baseline of PGD."""

from detectron2.config import LazyCall as L

from dense_kd.detectors import ATSS, ATSSHead

from .backbones import TORCHVISION_INPUT
from .heads import LEVELS, coco_head


def atss(backbone, quality="centerness", image_input=TORCHVISION_INPUT):
    return L(ATSS)(
        backbone=backbone,
        head=coco_head(ATSSHead, quality=quality),
        head_in_features=LEVELS,
        num_classes=80,
        **image_input,
    )
