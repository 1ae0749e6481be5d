"""What lies behind an AP: error types, calibration, and whether two runs differ.

All of it is computed by hotcoco, an extra (``pip install 'dense_kd[evaluation]'``).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from .coco import METRICS, evaluate_boxes, percent, read_annotations, require_hotcoco
from .errors import EvaluationError

__all__ = [
    "Analysis",
    "Calibration",
    "Difference",
    "ErrorTypes",
    "compare",
    "read_results",
]

MAIN_ERRORS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
SPECIAL_ERRORS = ("FalsePos", "FalseNeg")


@dataclasses.dataclass(frozen=True)
class ErrorTypes:
    """What each kind of error costs (Bolya and others, "TIDE", ECCV 2020, section 2).

    Attributes:
        iou: above which an object is found.
        background: below this IoU with all objects, a detection is of the background.
        ap: at ``iou``, in percent.
        main: {type: points of AP that would be won, were all errors of the type mended}: a wrong
            class, a bad place, both, a duplicate, background, and a miss.
        special: the same of all false positives, and of all false negatives.
        counts: {type of main: number of errors}.
    """

    iou: float
    background: float
    ap: float
    main: dict[str, float]
    special: dict[str, float]
    counts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How far scores are from the part of detections that are right (Guo and others, ICML 2017).

    Attributes:
        ece: expected calibration error: the mean over detections of the distance between score and
            accuracy of their bin, in [0, 1].
        mce: the largest such distance.
        bins: of each, {"bin_lower", "bin_upper", "avg_confidence", "avg_accuracy", "count"}.
        per_class: {name: ece}.
    """

    ece: float
    mce: float
    bins: list[dict[str, float]]
    per_class: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Difference:
    """What a metric of a second run has more than that of a first.

    Attributes:
        value: in points.
        low, high: bounds of the interval of the paired bootstrap over images.
    """

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval is on one side of 0."""
        return self.low > 0 or self.high < 0


class Analysis:
    """Detections of one run, and the annotations of its dataset."""

    def __init__(
        self,
        annotations: str | COCO,
        results: str | Sequence[Mapping[str, Any]],
        source: str = "the results",
    ):
        """
        Args:
            annotations: COCO's, a file or loaded.
            results: in COCO's format for results, a file (``coco_instances_results.json`` of an
                evaluation) or its content. Those that name their image or category, as of
                ``dense-kd predict``, are of what they name, see :class:`.names.Names`.
            source: what errors call ``results`` that are no file.

        Raises:
            MissingExtraError: hotcoco is not installed.
            EvaluationError: ``results`` is empty, or of other images or categories than
                ``annotations``.
        """
        require_hotcoco()
        truth = read_annotations(annotations) if isinstance(annotations, str) else annotations
        source = results if isinstance(results, str) else source
        found = read_results(results) if isinstance(results, str) else list(results)
        if not found:
            raise EvaluationError(f"{source}: there are no detections to analyse")
        self.class_names = [truth.cats[category]["name"] for category in sorted(truth.cats)]
        try:
            self._evaluation = evaluate_boxes(truth, found, implementation="hotcoco")
        except EvaluationError as error:
            raise EvaluationError(f"{source}: {error}") from error

    def metrics(self) -> dict[str, float]:
        """The twelve of COCO, in percent; nan where undefined."""
        return {name: percent(v) for name, v in zip(METRICS, self._evaluation.stats)}

    def per_class(self) -> dict[str, dict[str, float]]:
        """{class: {"AP", "AP50", "AP75", "APs", "APm", "APl"}}, in percent; nan where undefined."""
        precision = self._evaluation.eval["precision"]  # (IoU, recall, class, area, detections)
        every = slice(None)
        places: dict[str, tuple[int | slice, int]] = {
            "AP": (every, 0),
            "AP50": (0, 0),
            "AP75": (5, 0),
            "APs": (every, 1),
            "APm": (every, 2),
            "APl": (every, 3),
        }
        found = {}
        for index, name in enumerate(self.class_names):
            parts = {k: precision[iou, ..., index, area, -1] for k, (iou, area) in places.items()}
            found[name] = {
                key: percent(part[part > -1].mean() if (part > -1).any() else -1)
                for key, part in parts.items()
            }
        return found

    def error_types(self, iou: float = 0.5, background: float = 0.1) -> ErrorTypes:
        """TIDE's errors of the run.

        Args:
            iou: one of COCO's thresholds, 0.5, 0.55, ..., 0.95.
            background: below ``iou``.

        Raises:
            EvaluationError: an argument is out of range.
        """
        if round(iou * 20) not in range(10, 20) or abs(iou * 20 - round(iou * 20)) > 1e-6:
            raise EvaluationError(f"iou={iou}: expected 0.5, 0.55, ... or 0.95")
        if not 0 <= background < iou:
            raise EvaluationError(
                f"background={background}: expected a number from 0 to below {iou}"
            )
        found = self._evaluation.tide_errors(pos_thr=iou, bg_thr=background)
        costs = {name: 100 * value for name, value in found["delta_ap"].items()}
        return ErrorTypes(
            iou,
            background,
            100 * found["ap_base"],
            {name: costs[name] for name in MAIN_ERRORS},
            dict(zip(SPECIAL_ERRORS, (costs["FP"], costs["FN"]))),
            {name: found["counts"][name] for name in MAIN_ERRORS},
        )

    def calibration(self, iou: float = 0.5, bins: int = 10) -> Calibration:
        """How far to trust the scores.

        Args:
            iou: from which a detection is right, one of COCO's thresholds.
            bins: of equal width, over scores in [0, 1].
        """
        found = self._evaluation.calibration(n_bins=bins, iou_threshold=iou)
        return Calibration(found["ece"], found["mce"], found["bins"], dict(found["per_category"]))


def compare(
    first: Analysis,
    second: Analysis,
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """What the second run has more than the first, with an interval each.

    The images of the dataset are drawn with replacement, the same ones for both runs, and the
    metrics are those of the drawn images.

    Args:
        first, second: of one dataset.
        samples: how often is drawn.
        seed: of the draws.
        confidence: of the interval, in (0, 1).

    Returns:
        {metric of COCO: difference}, in points, without undefined ones.

    Raises:
        EvaluationError: ``samples`` is no number above 0, or ``confidence`` not in (0, 1).
    """
    if samples < 1 or not 0 < confidence < 1:
        raise EvaluationError(
            f"samples={samples}, confidence={confidence}: expected one sample or more, and a "
            "number between 0 and 1"
        )
    found = require_hotcoco().compare(
        first._evaluation,
        second._evaluation,
        n_bootstrap=samples,
        seed=seed,
        confidence=confidence,
    )
    differences = {}
    known = [{k for k, v in run.metrics().items() if v == v} for run in (first, second)]
    for name, value in found["deltas"].items():
        interval = found["ci"].get(name)
        if name in known[0] & known[1] and interval is not None:
            bounds = (100 * interval["lower"], 100 * interval["upper"])
            differences[name] = Difference(100 * value, *bounds)
    return differences


def read_results(file: str) -> list[dict[str, Any]]:
    """The detections of a file in COCO's format for results.

    Raises:
        EvaluationError: it is none.
    """
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, list):
        raise EvaluationError(f"{file}: expected a list of detections, got {type(found).__name__}")
    return found
