"""COCO's metrics of boxes: detectron2's evaluator, computed by hotcoco where that is installed."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectron2.evaluation import COCOEvaluator as Detectron2COCOEvaluator
from detectron2.utils.file_io import PathManager
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..checkpoint import saving
from ..errors import MissingExtraError
from .boxes_alone import BoxesAlone
from .errors import EvaluationError

__all__ = [
    "DETECTIONS",
    "IMPLEMENTATIONS",
    "METRICS",
    "RECALLS",
    "COCOEvaluator",
    "accumulated",
    "box_metrics",
    "check_implementation",
    "evaluate_boxes",
    "percent",
    "read_annotations",
    "require_hotcoco",
]


IMPLEMENTATIONS = ("hotcoco", "pycocotools")
"""The first is an extra and quicker, the second the reference; their numbers are equal."""

DETECTIONS = "coco_instances_results.json"
"""The file in which COCO's evaluators, detectron2's and ours, leave what was detected."""

RECALLS = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""Average recall, with at most 1, 10 and 100 detections in an image, and with 100 by size."""

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", *RECALLS)
"""The twelve numbers of COCO, in the order of ``stats``."""


def percent(value: float) -> float:
    """One of ``stats``, or a mean of ``precision``, in percent; nan where undefined, there -1."""
    return 100 * float(value) if value >= 0 else float("nan")


def read_annotations(file: str) -> COCO:
    """COCO's annotations.

    Raises:
        EvaluationError: the file holds none.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(file)
    except (OSError, ValueError, AssertionError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{file} cannot be read as annotations of COCO: {type(error).__name__}: {error}"
        ) from error


def require_hotcoco() -> Any:
    """The module.

    Raises:
        MissingExtraError: it is not installed; the message says how it is.
    """
    try:
        import hotcoco
    except ImportError as error:
        raise MissingExtraError(
            "hotcoco is not installed; pip install 'dense_kd[evaluation]', or hotcoco"
        ) from error
    return hotcoco


def check_implementation(implementation: str) -> None:
    """Raise unless boxes can be evaluated with it.

    Raises:
        ValueError: it is neither "auto" nor one of :data:`IMPLEMENTATIONS`.
        MissingExtraError: hotcoco is asked for, but not installed.
    """
    if implementation not in ("auto", *IMPLEMENTATIONS):
        raise ValueError(
            f"implementation={implementation!r}: expected auto or one of "
            f"{', '.join(IMPLEMENTATIONS)}"
        )
    _uses_hotcoco(implementation)


def _uses_hotcoco(implementation: str) -> bool:
    try:
        return implementation != "pycocotools" and require_hotcoco() is not None
    except MissingExtraError:
        if implementation == "hotcoco":
            raise
        return False


class COCOEvaluator(Detectron2COCOEvaluator):
    """COCO's AP of boxes, masks and keypoints, and the average recall of boxes.

    As detectron2's of that name, without its compiled approximation. Results have
    :data:`RECALLS` beside AP, AP50, AP75, APs, APm, APl and AP-<class>, in percent; all of them are
    NaN if nothing was detected.
    """

    def __init__(
        self,
        dataset_name: Any,  # engine.checks says of all evaluators what a name is
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        implementation: str = "auto",
        kpt_oks_sigmas: Sequence[float] = (),
    ):
        """
        Args:
            dataset_name: of detectron2's catalog.
            tasks, distributed, output_dir, kpt_oks_sigmas: of detectron2's COCOEvaluator.
            implementation: what computes the metrics of boxes, of :data:`IMPLEMENTATIONS`; "auto"
                is the first that is installed.

        Raises:
            ValueError: there is no such implementation.
            MissingExtraError: hotcoco is asked for, but not installed.
            EvaluationError: see :class:`.boxes_alone.BoxesAlone`.
        """
        check_implementation(implementation)
        super().__init__(
            dataset_name,
            tasks,
            distributed,
            output_dir,
            use_fast_impl=False,
            kpt_oks_sigmas=kpt_oks_sigmas,
        )
        if tasks is None or "bbox" in tasks:
            BoxesAlone(self._coco_api)  # what is wrong with it is said before the first batch
        self.implementation = implementation

    @property
    def metric_names(self) -> set[str]:
        """All that :meth:`evaluate` gives of boxes."""
        return box_metrics(self, METRICS)

    def _eval_predictions(
        self, predictions: Sequence[Mapping[str, Any]], img_ids: Iterable[int] | None = None
    ) -> None:
        results = list(itertools.chain.from_iterable(each["instances"] for each in predictions))
        tasks = self._tasks or self._tasks_from_predictions(results)
        if set(tasks) != {"bbox"} or not results or not self._do_evaluation:
            super()._eval_predictions(predictions, img_ids=img_ids)
            if set(tasks) == {"bbox"} and self._do_evaluation:
                self._results["bbox"].update(dict.fromkeys(RECALLS, float("nan")))
            return
        mapping = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if mapping is not None:
            dataset_ids = {index: category for category, index in mapping.items()}
            results = [{**r, "category_id": dataset_ids[r["category_id"]]} for r in results]
        if self._output_dir:
            path = os.path.join(self._output_dir, DETECTIONS)
            with saving(path), PathManager.open(path, "w") as file:
                json.dump(results, file)
        evaluated = evaluate_boxes(self._coco_api, results, img_ids, self.implementation)
        names = self._metadata.get("thing_classes")
        found = self._derive_coco_results(evaluated, "bbox", class_names=names)
        recalls = dict(zip(RECALLS, map(percent, evaluated.stats[6:12])))
        self._results["bbox"] = {**found, **recalls}

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
    ) -> dict[str, float]:
        found: dict[str, float] = super()._derive_coco_results(coco_eval, iou_type, class_names)
        if coco_eval is None and class_names is not None and len(class_names) > 1:
            found.update({f"AP-{name}": float("nan") for name in class_names})
        return found


def box_metrics(evaluator: Detectron2COCOEvaluator, metrics: Iterable[str]) -> set[str]:
    """What an evaluation of boxes will be made of, as "bbox/AP" and "bbox/AP-car".

    Args:
        evaluator: detectron2's or this module's; one of images without annotations gives nothing.
        metrics: that it has beside those of the classes.
    """
    if not evaluator._do_evaluation:
        return set()
    classes = evaluator._metadata.get("thing_classes") or ()
    names = [f"AP-{name}" for name in classes] if len(classes) > 1 else []
    return {f"bbox/{name}" for name in (*names, *metrics)}


def evaluate_boxes(
    truth: COCO,
    results: Sequence[Mapping[str, Any]],
    image_ids: Iterable[int] | None = None,
    implementation: str = "auto",
) -> Any:
    """COCO's evaluation of boxes.

    Args:
        truth: the annotations.
        results: in COCO's format for results, at least one.
        image_ids: to be evaluated; None is all.
        implementation: as of :class:`COCOEvaluator`.

    Returns:
        pycocotools' ``COCOeval``, or hotcoco's of that name, with ``stats`` (the twelve numbers, -1
        where undefined) and ``eval`` (with ``precision`` of (10, 101, classes, 4, 3)).

    Raises:
        EvaluationError: see :class:`.boxes_alone.BoxesAlone`.
    """
    parameters = {} if image_ids is None else {"imgIds": sorted(image_ids)}
    evaluation = accumulated(truth, results, implementation, parameters)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    return evaluation


def accumulated(
    truth: COCO,
    results: Sequence[Mapping[str, Any]],
    implementation: str = "auto",
    parameters: Mapping[str, Any] | None = None,
) -> Any:
    """As :func:`evaluate_boxes`, with other thresholds and without ``stats``.

    Args:
        truth, results, implementation: as there.
        parameters: of ``COCOeval.params``, as {"iouThrs": [0.5]}.

    Raises:
        EvaluationError: see :class:`.boxes_alone.BoxesAlone`.
    """
    alone = BoxesAlone(truth)
    found = alone.results(results)
    # Both libraries print tables and remarks of their own.
    with contextlib.redirect_stdout(io.StringIO()):
        if _uses_hotcoco(implementation):
            hotcoco = require_hotcoco()
            annotations = hotcoco.COCO(alone.dataset)
            evaluation = hotcoco.COCOeval(annotations, annotations.loadRes(found), "bbox")
        else:
            annotations = COCO()
            annotations.dataset = alone.dataset
            annotations.createIndex()
            found = [dict(each) for each in found]  # it adds entries to them
            evaluation = COCOeval(annotations, annotations.loadRes(found), "bbox")
        for name, value in alone.parameters(parameters or {}).items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation
