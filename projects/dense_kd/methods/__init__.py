"""Distillation methods: one paper, one file."""

from .base import DistillationError, KDMethod, MethodSet, Needs, Step
from .bckd import BCKD
from .class_maps import ClassMap
from .crosskd import CrossKD

__all__ = [
    "BCKD",
    "ClassMap",
    "CrossKD",
    "DistillationError",
    "KDMethod",
    "MethodSet",
    "Needs",
    "Step",
]
