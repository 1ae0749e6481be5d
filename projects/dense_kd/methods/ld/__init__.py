"""LD: "Localization Distillation for Dense Object Detection" (Zheng et al., CVPR 2022)."""

from .ld import LD

__all__ = ["LD"]
