"""TID: "Task Integration Distillation for Object Detectors" (Su, Jian and Yu, arXiv
2404.01699)."""

from .tid import TID

__all__ = ["TID"]
