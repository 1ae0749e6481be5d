"""Evaluators for detectron2, and what lies behind their numbers."""

from .coco import COCOEvaluator
from .crowdhuman import CrowdHumanEvaluator
from .voc import VOCEvaluator

__all__ = ["COCOEvaluator", "CrowdHumanEvaluator", "VOCEvaluator"]
