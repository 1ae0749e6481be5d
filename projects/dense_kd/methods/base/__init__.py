"""What a method is (:mod:`.kd_method`), several in one run, and what methods share."""

from .kd_method import DistillationError, KDMethod, Needs, Step
from .method_set import MethodSet

__all__ = ["DistillationError", "KDMethod", "MethodSet", "Needs", "Step"]
