"""What ``from dense_kd import ...`` finds; to import it is to import torch and detectron2."""

from . import data
from .config import get_config, get_config_file
from .detectors import ATSS, DDOD, FCOS, GFL, AutoAssign, RetinaNet, from_detectron2
from .distiller import Distiller
from .feature_teacher import FeatureTeacher
from .methods import (
    BCKD,
    DSI,
    FGD,
    FGFI,
    FKD,
    FRS,
    KD,
    LD,
    MGD,
    PGD,
    PKD,
    TID,
    Balance,
    CanKD,
    CrossKD,
    DeFeat,
    DistillationError,
    FitNet,
    FromTeacher,
    GIBox,
    KDMethod,
    MethodSet,
)
from .pipeline.named_detectors import named_detector
from .pipeline.own_data import own_dataloader
from .pipeline.run import distill
from .prediction import Predictor
from .recipes import known_teacher, recipe
from .teacher import Teacher
from .unlabelled import PseudoLabels
from .yacs_config import DistillFCOS, DistillRetinaNet, add_dense_kd_config

__all__ = [
    "ATSS",
    "BCKD",
    "DDOD",
    "DSI",
    "FCOS",
    "FGD",
    "FGFI",
    "FKD",
    "FRS",
    "GFL",
    "KD",
    "LD",
    "MGD",
    "PGD",
    "PKD",
    "TID",
    "AutoAssign",
    "CanKD",
    "Balance",
    "CrossKD",
    "DeFeat",
    "DistillFCOS",
    "DistillRetinaNet",
    "DistillationError",
    "Distiller",
    "FeatureTeacher",
    "FitNet",
    "FromTeacher",
    "GIBox",
    "KDMethod",
    "MethodSet",
    "Predictor",
    "PseudoLabels",
    "RetinaNet",
    "Teacher",
    "add_dense_kd_config",
    "data",
    "distill",
    "from_detectron2",
    "get_config",
    "get_config_file",
    "known_teacher",
    "named_detector",
    "own_dataloader",
    "recipe",
]
