"""Distillation methods: one paper, one file."""

from .base import DistillationError, KDMethod, MethodSet, Needs, Step
from .bckd import BCKD
from .class_maps import ClassMap

__all__ = ["BCKD", "ClassMap", "DistillationError", "KDMethod", "MethodSet", "Needs", "Step"]
