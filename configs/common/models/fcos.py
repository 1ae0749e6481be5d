"""FCOS on COCO: detectron2 main's, and the variants of mmdetection."""

from detectron2.config import LazyCall as L

from dense_kd.detectors import FCOS, DistanceCoder, FCOSHead

from .backbones import MSRA_INPUT, resnet_fpn
from .heads import LEVELS, coco_head


def fcos(depth):
    """detectron2 main's: centre sampling, normalised distances, GIoU."""
    return L(FCOS)(
        backbone=resnet_fpn(depth, "p5"),
        head=coco_head(FCOSHead),
        head_in_features=LEVELS,
        num_classes=80,
        **MSRA_INPUT,
    )


def mmdet_fcos(backbone, image_input, tricks=False, box_loss="iou"):
    """The paper's plain FCOS; `tricks` are centre sampling, normalised distances, and centreness
    from the box tower."""
    coder = (
        L(DistanceCoder)()
        if tricks
        else L(DistanceCoder)(activation="exp", normalize_by_size=False)
    )
    return L(FCOS)(
        backbone=backbone,
        head=coco_head(
            FCOSHead,
            level_scales=True,
            conv_bias=tricks,
            centerness_on="bbox" if tricks else "cls",
        ),
        head_in_features=LEVELS,
        box2box_transform=coder,
        center_sampling_radius=1.5 if tricks else None,
        assign_rule="mmdet",
        box_reg_loss_type=box_loss,
        box_loss_weighting="centerness",
        loss_normalizer_momentum=0.0,
        loss_normalizer_sync=True,
        score="product",
        clip_before_nms=True,
        test_score_thresh=0.05,
        test_nms_thresh=0.6 if tricks else 0.5,
        num_classes=80,
        **image_input,
    )
