"""Distillation methods: one paper, one file."""

from .base import DistillationError, KDMethod, MethodSet, Needs, Step
from .bckd import BCKD
from .class_maps import ClassMap
from .crosskd import CrossKD
from .kd import KD
from .ld import LD
from .pkd import PKD
from .tid import TID

__all__ = [
    "BCKD",
    "KD",
    "LD",
    "PKD",
    "TID",
    "ClassMap",
    "CrossKD",
    "DistillationError",
    "KDMethod",
    "MethodSet",
    "Needs",
    "Step",
]
