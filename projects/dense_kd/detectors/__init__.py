"""Dense detectors that can be teachers and students."""

from .. import checkpoint  # noqa: F401  # names the weights that configs of detectors start from
from ..timm_models import timm_normalisation
from .assignment.adaptive import ATSSAssigner, DDODAssigner
from .assignment.fcos import FCOSAssigner
from .assignment.max_iou import MaxIoUAssigner
from .atss import ATSS, ATSSHead
from .autoassign import AutoAssign, AutoAssignHead, AutoAssignTargets
from .backbones import (
    FrozenStatisticsBatchNorm,
    LastLevelP6P7OptionalReLU,
    MobileNetV2,
    SwinTransformer,
    TimmBackbone,
)
from .base.deform_conv import DeformConv2d
from .base.dense import DenseDetector
from .base.heads import HeadOutputs, QualityHead, TowerHead
from .base.square_anchors import SquareAnchorDetector
from .boxes.coders import DeltaCoder, DistanceCoder
from .ddod import DDOD, DDODHead, DDODTargets
from .fcos import FCOS, FCOSHead
from .gfl import GFL, GFLHead
from .interop.detectron2 import from_detectron2
from .interop.torchvision import TorchvisionAnchorGenerator, frozen_batch_norm
from .retinanet import RetinaNet

__all__ = [
    "ATSS",
    "DDOD",
    "FCOS",
    "GFL",
    "ATSSAssigner",
    "ATSSHead",
    "DDODAssigner",
    "DDODHead",
    "DDODTargets",
    "DeformConv2d",
    "DeltaCoder",
    "AutoAssign",
    "AutoAssignHead",
    "AutoAssignTargets",
    "DenseDetector",
    "DistanceCoder",
    "FCOSAssigner",
    "FCOSHead",
    "FrozenStatisticsBatchNorm",
    "GFLHead",
    "HeadOutputs",
    "LastLevelP6P7OptionalReLU",
    "MaxIoUAssigner",
    "MobileNetV2",
    "QualityHead",
    "RetinaNet",
    "SquareAnchorDetector",
    "SwinTransformer",
    "TimmBackbone",
    "TorchvisionAnchorGenerator",
    "TowerHead",
    "from_detectron2",
    "frozen_batch_norm",
    "timm_normalisation",
]
