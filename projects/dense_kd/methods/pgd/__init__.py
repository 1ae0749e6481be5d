"""PGD: "Prediction-Guided Distillation for Dense Object Detection" (Yang et al., ECCV 2022)."""

from .pgd import PGD

__all__ = ["PGD"]
