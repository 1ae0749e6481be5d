"""The score above which detections are taken for objects, chosen on labelled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from .coco import accumulated
from .errors import EvaluationError

__all__ = ["ScoreThreshold", "best_threshold"]

STEP = 0.01


@dataclasses.dataclass(frozen=True)
class ScoreThreshold:
    """A threshold, and what it is worth.

    Attributes:
        score: from which a detection counts, a multiple of 0.01.
        precision: the part of the detections that are right.
        recall: the part of the objects that are found.
        f1: their harmonic mean.
        iou: from which a detection of an object's class is right.
    """

    score: float
    precision: float
    recall: float
    f1: float
    iou: float

    def __str__(self) -> str:
        return (
            f"score_thresh={self.score:g}: {100 * self.precision:.1f} % of the detections are "
            f"right and {100 * self.recall:.1f} % of the objects are found (F1 {self.f1:.3f}, at "
            f"an IoU of {self.iou:g})"
        )


def best_threshold(
    truth: COCO, results: Sequence[Mapping[str, Any]], iou: float = 0.5
) -> ScoreThreshold:
    """The score at which F1, over the objects of all classes together, is largest.

    Detections are matched with objects as COCO does it, the best first, and those in regions to be
    ignored do not count. Of equal F1 the highest score is taken.

    Args:
        truth: the annotations.
        results: in COCO's format for results.
        iou: from which a detection of an object's class is right.

    Raises:
        EvaluationError: there is nothing to choose by.
    """
    if not results:
        raise EvaluationError(
            "nothing was detected in the labelled images, so no score can be chosen by them; look "
            "at the weights, or whether the classes are those of the images"
        )
    parameters = {"iouThrs": [iou], "areaRng": [[0, 1e10]], "areaRngLbl": ["all"]}
    parameters["maxDets"] = [len(results)]  # all of an image, also where they are above 100
    evaluation = accumulated(truth, results, "pycocotools", parameters)
    images = [image for image in evaluation.evalImgs if image is not None]
    number = sum(int(np.sum(np.asarray(image["gtIgnore"]) == 0)) for image in images)
    if number == 0:
        raise EvaluationError("the labelled images have no object, so no score can be chosen")
    scores = np.concatenate([np.asarray(image["dtScores"], dtype=float) for image in images])
    counts = np.concatenate([image["dtIgnore"][0] == 0 for image in images])
    right = np.concatenate([image["dtMatches"][0] > 0 for image in images]) & counts
    best = ScoreThreshold(STEP, 0.0, 0.0, 0.0, iou)
    for step in range(1, round(1 / STEP)):
        score = round(step * STEP, 2)
        kept = scores >= score
        found, detected = int((right & kept).sum()), int((counts & kept).sum())
        precision, recall = found / max(detected, 1), found / number
        f1 = 2 * found / (detected + number)
        if found and f1 >= best.f1:
            best = ScoreThreshold(score, precision, recall, f1, iou)
    if best.f1 == 0:
        raise EvaluationError(
            f"of {len(results)} detections in the labelled images, with scores of up to "
            f"{max(each['score'] for each in results):.3g}, none from {STEP:g} on is right (IoU of "
            f"{iou:g}), so no score can be chosen by them; look at the weights, or whether the "
            "classes are those of the images"
        )
    return best
