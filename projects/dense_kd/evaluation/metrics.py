"""The metrics that evaluators give, and which of them are better when lower.

Evaluators of this package say both, and so may any other: ``metric_names``, all that it gives as
"task/name", and ``lower_is_better``, those of them of which less is more. Of detectron2's for COCO
and Pascal VOC they are known.
"""

from __future__ import annotations

from typing import Any

from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator

from .coco import METRICS, RECALLS, box_metrics

__all__ = ["VOC_METRICS", "lower_is_better", "metric_names"]

VOC_METRICS = ("bbox/AP", "bbox/AP50", "bbox/AP75")
"""Of detectron2's evaluator for Pascal VOC."""


def metric_names(evaluator: Any) -> set[str] | None:
    """All that an evaluator will give, as "bbox/AP"; None if only it knows.

    Args:
        evaluator: one; see :func:`dense_kd.engine.evaluation.each_evaluator`.
    """
    declared = getattr(evaluator, "metric_names", None)
    if declared is not None:
        return set(declared)
    if isinstance(evaluator, COCOEvaluator):
        return box_metrics(evaluator, METRICS[: -len(RECALLS)])
    evaluate = getattr(type(evaluator), "evaluate", None)  # a subclass may give something else
    return set(VOC_METRICS) if evaluate is PascalVOCDetectionEvaluator.evaluate else None


def lower_is_better(evaluator: Any) -> set[str]:
    """Those of :func:`metric_names` of which the lowest is the best."""
    return set(getattr(evaluator, "lower_is_better", ()))
