"""AutoAssign on COCO, as in mmdetection."""

from detectron2.config import LazyCall as L

from dense_kd.detectors import AutoAssign, AutoAssignHead

from .backbones import TORCHVISION_INPUT
from .heads import LEVELS, coco_head


def autoassign(backbone, image_input=TORCHVISION_INPUT):
    return L(AutoAssign)(
        backbone=backbone,
        head=coco_head(AutoAssignHead),
        head_in_features=LEVELS,
        num_classes=80,
        **image_input,
    )
