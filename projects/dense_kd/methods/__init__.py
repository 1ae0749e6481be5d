"""Distillation methods: one paper, one file."""

from .base import DistillationError, KDMethod, MethodSet, Needs, Step
from .bckd import BCKD

__all__ = ["BCKD", "DistillationError", "KDMethod", "MethodSet", "Needs", "Step"]
