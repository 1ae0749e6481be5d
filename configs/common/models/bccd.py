"""Detectors of BCCD's three classes: small ones (P3 to P5) on images as EfficientNet-Lite's weights
saw them."""

from dense_kd.data.bccd import CLASSES

from .timm_backbones import EFFICIENTNET_LITE_INPUT, small_timm_fpn


def _of_bccd(small, channels):
    model = small(width=16, channels=channels, num_classes=len(CLASSES))
    model.class_names = list(CLASSES)
    model.update(EFFICIENTNET_LITE_INPUT)
    return model


def bccd_r18(small, channels=64):
    """On a ResNet-18 with a quarter of its channels, which starts randomly.

    small: small_gfl, small_fcos or another of small.py.
    """
    return _of_bccd(small, channels)


def bccd_lite(small, size, channels=64, norm="BN", freeze_at=0):
    """On EfficientNet-Lite0, 1 or 2 (`size`); freeze_at=5 leaves it as ImageNet made it."""
    model = _of_bccd(small, channels)
    model.backbone = small_timm_fpn(
        f"tf_efficientnet_lite{size}", channels, norm=norm, freeze_at=freeze_at
    )
    return model
