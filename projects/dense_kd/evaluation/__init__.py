"""Evaluation beyond COCO's: other datasets' metrics, as evaluators of detectron2."""

from .crowdhuman import CrowdHumanEvaluator

__all__ = ["CrowdHumanEvaluator"]
