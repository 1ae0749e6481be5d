"""DDOD on COCO, as in mmdetection; with other `options`, as in PGD."""

from detectron2.config import LazyCall as L

from dense_kd.detectors import DDOD, DDODHead

from .backbones import TORCHVISION_INPUT
from .heads import LEVELS, coco_head


def ddod(backbone, image_input=TORCHVISION_INPUT, **options):
    return L(DDOD)(
        backbone=backbone,
        head=coco_head(DDODHead),
        head_in_features=LEVELS,
        num_classes=80,
        **image_input,
        **options,
    )
