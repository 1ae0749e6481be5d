"""Dense detectors that can be teachers and students."""

from .assigners import ATSSAssigner, FCOSAssigner, MaxIoUAssigner
from .box_coders import DistanceCoder
from .dense import DenseDetector
from .fcos import FCOS, FCOSHead
from .heads import HeadOutputs, QualityHead, TowerHead
from .retinanet import RetinaNet
from .stock import from_detectron2

__all__ = [
    "FCOS",
    "ATSSAssigner",
    "DenseDetector",
    "DistanceCoder",
    "FCOSAssigner",
    "FCOSHead",
    "HeadOutputs",
    "MaxIoUAssigner",
    "QualityHead",
    "RetinaNet",
    "TowerHead",
    "from_detectron2",
]
