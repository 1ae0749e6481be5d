"""Dense detectors that can be teachers and students."""

from .adaptive_assigners import ATSSAssigner, DDODAssigner
from .assigners import FCOSAssigner, MaxIoUAssigner
from .atss import ATSS, ATSSHead
from .autoassign import AutoAssign, AutoAssignHead, AutoAssignTargets
from .backbones import (
    FrozenStatisticsBatchNorm,
    LastLevelP6P7OptionalReLU,
    MobileNetV2,
    SwinTransformer,
)
from .box_coders import DeltaCoder, DistanceCoder
from .ddod import DDOD, DDODHead, DDODTargets
from .deform_conv import DeformConv2d
from .dense import DenseDetector
from .fcos import FCOS, FCOSHead
from .gfl import GFL, GFLHead
from .heads import HeadOutputs, QualityHead, TowerHead
from .retinanet import RetinaNet
from .square_anchors import SquareAnchorDetector
from .stock import from_detectron2
from .torchvision import TorchvisionAnchorGenerator, frozen_batch_norm

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
    "TorchvisionAnchorGenerator",
    "TowerHead",
    "from_detectron2",
    "frozen_batch_norm",
]
