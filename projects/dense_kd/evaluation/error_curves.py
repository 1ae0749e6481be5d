"""Precision over recall as errors are forgiven one kind after the other.

The analysis of errors that COCO's toolkit has for boxes (cocodataset.org/#detection-eval, "Analysis
code"; TID, Figure 3): what lies between two curves is what the errors of the later one cost.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from .coco import accumulated, read_annotations
from .errors import EvaluationError

__all__ = ["KINDS", "ErrorCurves", "error_curves"]

KINDS = {
    "C75": "right at an IoU of 0.75",
    "C50": "right at 0.5",
    "Loc": "places forgiven: right at 0.1",
    "Sim": "and other classes of the same supercategory",
    "Oth": "and all other classes",
    "BG": "and all false alarms",
    "FN": "and all misses",
}
"""{curve: what it forgives}, each after those before it."""

RECALL = np.linspace(0, 1, 101)


@dataclasses.dataclass(frozen=True)
class ErrorCurves:
    """Of all objects of some sizes.

    Attributes:
        per_class: {class: {curve of :data:`KINDS`: (101,) precision at :data:`RECALL`}}, without
            classes that have no objects.
    """

    per_class: dict[str, dict[str, np.ndarray]]

    def mean(self) -> dict[str, np.ndarray]:
        """{curve: (101,)}, the mean over classes."""
        curves = self.per_class.values()
        return {kind: np.mean([each[kind] for each in curves], axis=0) for kind in KINDS}

    def areas(self) -> dict[str, float]:
        """{curve: area below the mean one}, in percent; that of C50 is AP50."""
        return {kind: 100 * float(curve.mean()) for kind, curve in self.mean().items()}


def error_curves(
    annotations: str | COCO,
    results: Sequence[Mapping[str, Any]],
    *,
    area: tuple[float, float] = (0, 1e10),
    implementation: str = "auto",
) -> ErrorCurves:
    """Evaluate results as often as there are kinds of errors to forgive.

    To forgive a confusion of classes, the objects of the others are regions to ignore.

    Args:
        annotations: COCO's, a file or loaded. A category without ``supercategory`` is its own.
        results: in COCO's format for results, at least one.
        area: of the objects, from and to, in square pixels.
        implementation: as of :class:`.coco.COCOEvaluator`.

    Raises:
        EvaluationError: there are no results, or no objects.
    """
    if not results:
        raise EvaluationError("there are no detections to analyse")
    truth = read_annotations(annotations) if isinstance(annotations, str) else annotations
    of_sizes = {"maxDets": [100], "areaRng": [list(area)], "areaRngLbl": ["all"]}

    def precision(truth: COCO, thresholds: list[float], category: int | None = None) -> np.ndarray:
        """(thresholds, 101, classes)."""
        parameters: dict[str, Any] = {"iouThrs": np.array(thresholds), **of_sizes}
        if category is not None:
            parameters["catIds"] = [category]
        found = accumulated(truth, results, implementation, parameters)
        return np.asarray(found.eval["precision"])[..., 0, 0]

    categories = sorted(truth.cats)
    strict = precision(truth, [0.75, 0.5, 0.1])
    per_class = {}
    for index, category in enumerate(categories):
        if (strict[..., index] < 0).all():
            continue  # without objects
        above = truth.cats[category].get("supercategory", category)
        similar = {c for c in categories if truth.cats[c].get("supercategory", c) == above}
        similar_forgiven, other_forgiven = (
            precision(_forgiving(truth, category, others), [0.1], category)[0, :, 0]
            for others in (similar, set(categories))
        )
        confused = (similar_forgiven, other_forgiven, other_forgiven > 0)
        curves = (*strict[..., index], *confused, np.ones_like(RECALL))
        per_class[truth.cats[category]["name"]] = {
            kind: np.asarray(curve, dtype=np.float64) for kind, curve in zip(KINDS, curves)
        }
    if not per_class:
        raise EvaluationError("there are no objects of these sizes to find")
    return ErrorCurves(per_class)


def _forgiving(truth: COCO, category: int, others: set[int]) -> COCO:
    """The annotations, where objects of other categories are regions that this one may be in."""
    forgiving = COCO()
    forgiving.dataset = copy.copy(truth.dataset)
    forgiving.dataset["annotations"] = [
        {**each, "category_id": category, "iscrowd": 1}
        if each["category_id"] in others and each["category_id"] != category
        else each
        for each in truth.dataset["annotations"]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        forgiving.createIndex()
    return forgiving
