"""torchvision's COCO detectors, whose checkpoints load into these: `torchvision://<function>`.

Same predictions and detections as torchvision's for the same padded image. Resizing is the
dataset's: torchvision's is short side 800, long side up to 1333. What decides about training is
the default of our detector (the normaliser of the losses, say), not torchvision's recipe.
A method that compares predictions one to one needs a student with these anchors, too.

`num_classes` does not count torchvision's background; see dense_kd.checkpoint.convert_torchvision.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher

from dense_kd.detectors import (
    FCOS,
    FCOSHead,
    RetinaNet,
    TorchvisionAnchorGenerator,
    TowerHead,
    frozen_batch_norm,
)

from .backbones import TORCHVISION_INPUT, resnet_fpn

LEVELS = ["p3", "p4", "p5", "p6", "p7"]
STRIDES = [8, 16, 32, 64, 128]


def retinanet_resnet50_fpn(num_classes=80, norm_eps=0.0):
    """torchvision runs its COCO weights with batch norms of eps 0; what it trains now has 1e-5."""
    backbone = resnet_fpn(50, "p5", stride_in_1x1=False)
    for norm_owner in (backbone.bottom_up.stem, *backbone.bottom_up.stages):
        norm_owner.norm = L(frozen_batch_norm)(eps=norm_eps)
    return retinanet(backbone, num_classes)


def retinanet_resnet50_fpn_v2(num_classes=80):
    """P6 from C5, group norm in the towers, GIoU loss."""
    model = retinanet(resnet_fpn(50, "res5", stride_in_1x1=False), num_classes)
    model.head.norm = "GN"
    model.head.conv_bias = False
    model.box_reg_loss_type = "giou"
    return model


def retinanet(backbone, num_classes):
    sizes = [[int(size * 2 ** (i / 3)) for i in range(3)] for size in [32, 64, 128, 256, 512]]
    return L(RetinaNet)(
        backbone=backbone,
        head=L(TowerHead)(
            input_shape=[ShapeSpec(channels=256)] * 5,
            num_classes="${..num_classes}",
            num_anchors=9,
            conv_dims=[256] * 4,
        ),
        head_in_features=LEVELS,
        anchor_generator=L(TorchvisionAnchorGenerator)(
            sizes=sizes, aspect_ratios=[0.5, 1.0, 2.0], strides=STRIDES
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        anchor_matcher=L(Matcher)(
            thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
        num_classes=num_classes,
        clip_before_nms=True,
        max_detections_per_image=300,
        **TORCHVISION_INPUT,
    )


def fcos_resnet50_fpn(num_classes=80):
    """detectron2's FCOS with its points in the upper left corners of the cells."""
    return L(FCOS)(
        backbone=resnet_fpn(50, "p5", stride_in_1x1=False),
        head=L(FCOSHead)(
            input_shape=[ShapeSpec(channels=256)] * 5,
            num_classes="${..num_classes}",
            conv_dims=[256] * 4,
            norm="GN",
        ),
        head_in_features=LEVELS,
        anchor_generator=L(TorchvisionAnchorGenerator)(
            sizes=[[stride] for stride in STRIDES], aspect_ratios=[1.0], strides=STRIDES
        ),
        num_classes=num_classes,
        clip_before_nms=True,
        **TORCHVISION_INPUT,
    )
