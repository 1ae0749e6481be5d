"""What a method is (:mod:`.kd_method`), and what several methods share."""

from .kd_method import DistillationError, KDMethod, MethodSet, Needs, Step

__all__ = ["DistillationError", "KDMethod", "MethodSet", "Needs", "Step"]
