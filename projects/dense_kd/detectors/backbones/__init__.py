"""Backbones, and parts of them, that detectron2 lacks."""

from .batch_norm import FrozenStatisticsBatchNorm
from .extra_levels import LastLevelP6P7OptionalReLU
from .mobilenet import MobileNetV2
from .swin import SwinTransformer
from .timm import TimmBackbone

__all__ = [
    "FrozenStatisticsBatchNorm",
    "LastLevelP6P7OptionalReLU",
    "MobileNetV2",
    "SwinTransformer",
    "TimmBackbone",
]
