"""The backbones of `backbones.py` as mmdetection's detectors and PGD's have them.

Both start from torchvision's weights. mmdetection trains the factors of the batch norms (their
statistics stay fixed), PGD does not; there is no ReLU between P6 and P7 but in FCOS and AutoAssign.
"""

from dense_kd.detectors import FrozenStatisticsBatchNorm

from .backbones import mobilenet_v2_fpn, resnet_fpn, resnext101_fpn


def mmdet_resnet_fpn(depth, extra_levels_from="p5"):
    return resnet_fpn(
        depth,
        extra_levels_from,
        stride_in_1x1=False,
        norm=FrozenStatisticsBatchNorm,
        relu_before_p7=False,
    )


def mmdet_resnext101_fpn(num_groups, extra_levels_from="p5"):
    return resnext101_fpn(
        num_groups, extra_levels_from, norm=FrozenStatisticsBatchNorm, relu_before_p7=False
    )


def mmdet_mobilenet_v2_fpn(extra_levels_from="p5"):
    return mobilenet_v2_fpn(extra_levels_from, norm=FrozenStatisticsBatchNorm, relu_before_p7=False)


def bckd_mobilenet_v2_fpn(extra_levels_from="p5"):
    """Of BCKD: the last block instead of the last convolution, LeakyReLU, nothing is fixed."""
    return mobilenet_v2_fpn(
        extra_levels_from,
        last_conv=False,
        negative_slope=0.1,
        norm="BN",
        freeze_at=0,
        relu_before_p7=False,
    )


def mmdet_caffe_resnet_fpn(depth, extra_levels_from="p5"):
    """Of FCOS and AutoAssign: MSRA's weights, nothing of the batch norms is trained."""
    return resnet_fpn(depth, extra_levels_from)


def pgd_resnet_fpn(depth, extra_levels_from="p5", relu_before_p7=False, freeze_at=2):
    return resnet_fpn(
        depth,
        extra_levels_from,
        stride_in_1x1=False,
        relu_before_p7=relu_before_p7,
        freeze_at=freeze_at,
    )


def pgd_mobilenet_v2_fpn(extra_levels_from="p5", relu_before_p7=False):
    return mobilenet_v2_fpn(extra_levels_from, relu_before_p7=relu_before_p7)
