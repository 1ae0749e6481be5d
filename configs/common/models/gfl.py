"""GFL on COCO, as in mmdetection."""

from detectron2.config import LazyCall as L

from dense_kd.detectors import GFL, GFLHead

from .backbones import TORCHVISION_INPUT
from .heads import LEVELS, coco_head


def gfl(backbone, image_input=TORCHVISION_INPUT):
    return L(GFL)(
        backbone=backbone,
        head=coco_head(GFLHead),
        head_in_features=LEVELS,
        num_classes=80,
        **image_input,
    )
