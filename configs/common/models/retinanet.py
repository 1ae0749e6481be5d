"""RetinaNet on COCO, as in the model zoos of detectron2 and mmdetection."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher

from dense_kd.detectors import DeltaCoder, RetinaNet, TowerHead

from .backbones import MSRA_INPUT, TORCHVISION_INPUT, resnet_fpn

# Where mmdetection's RetinaNet differs from detectron2's: in very small predicted boxes, anchors in
# the padding, anchors that are the best of a box but overlap another more, what divides the losses,
# and when detections are clipped.
MMDET_OPTIONS = dict(
    box2box_transform=L(DeltaCoder)(weights=[1.0, 1.0, 1.0, 1.0]),
    padding_multiple=32,
    reassign_best_anchors=True,
    loss_normalizer_momentum=0.0,
    count_empty_images=True,
    clip_before_nms=True,
)


def retinanet(backbone, image_input):
    return L(RetinaNet)(
        backbone=backbone,
        head=L(TowerHead)(
            input_shape=[ShapeSpec(channels=256)] * 5,
            num_classes="${..num_classes}",
            num_anchors=9,
            conv_dims=[256] * 4,
        ),
        head_in_features=["p3", "p4", "p5", "p6", "p7"],
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in [32, 64, 128, 256, 512]],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
            offset=0.0,
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        anchor_matcher=L(Matcher)(
            thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
        num_classes=80,
        **image_input,
    )


def mmdet_retinanet(backbone, image_input=TORCHVISION_INPUT):
    """mmdetection's retinanet_*_fpn_*_coco; its FPN has no ReLU between P6 and P7."""
    model = retinanet(backbone, image_input)
    model.update(MMDET_OPTIONS)
    return model


def retinanet_r50():
    return retinanet(resnet_fpn(50, "res5"), MSRA_INPUT)


def retinanet_r101():
    return retinanet(resnet_fpn(101, "res5"), MSRA_INPUT)


def retinanet_x101():
    """ResNeXt-101 64x4d."""
    backbone = resnet_fpn(101, "res5", num_groups=64, width_per_group=4, stride_in_1x1=False)
    return retinanet(backbone, TORCHVISION_INPUT)
