"""What a trained detector is worth: on each dataset, and on all of them together."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from pycocotools.coco import COCO

from ..engine.run import evaluate
from ..evaluation.analysis import Analysis, read_results
from ..evaluation.coco import DETECTIONS, read_annotations
from ..json_files import without_nan
from ..pipeline.results import metrics_of
from .cells import Cell
from .errors import StudyError

__all__ = ["POOLED", "check_classes", "measure", "pooled"]

POOLED = "pooled"
"""Names the metrics of all datasets together."""

_ERROR_IOU = 0.5


def measure(cell: Cell, weights: Path, folder: Path) -> dict[str, Any]:
    """Evaluate a detector on all datasets of its cell.

    Args:
        cell: of the training.
        weights: that it ended with.
        folder: for the detections.

    Returns:
        {"metrics": {dataset: COCO's}, and :data:`POOLED` of them together, whose "per_class",
        "error_types" and "calibration" are beside it}, in percent, None for what is undefined.
    """
    parts = []
    metrics: dict[str, Any] = {}
    for name in cell.evaluate:
        cfg = cell.bare_config()
        place = folder / name
        (place / DETECTIONS).unlink(missing_ok=True)
        cfg.train.init_checkpoint = str(weights)
        cfg.train.output_dir = str(folder)
        cfg.dataloader.test.dataset.names = name
        cfg.dataloader.evaluator.output_dir = str(place)
        with contextlib.redirect_stdout(io.StringIO()):  # tables
            metrics[name] = metrics_of(evaluate(cfg)["bbox"])
        found = read_results(str(place / DETECTIONS)) if (place / DETECTIONS).exists() else []
        parts.append((read_annotations(MetadataCatalog.get(name).json_file), found))
    truth, found = pooled(parts)
    if not found:
        nothing = {"AP": 0.0, "AP50": 0.0}
        empty: dict[str, Any] = dict.fromkeys(("per_class", "error_types", "calibration"))
        return {"metrics": {**metrics, POOLED: nothing}, **empty}
    analysis = Analysis(truth, found)
    errors = analysis.error_types(_ERROR_IOU)
    return without_nan(
        {
            "metrics": {**metrics, POOLED: analysis.metrics()},
            "per_class": analysis.per_class(),
            "error_types": {**errors.main, **errors.special},
            "calibration": dataclasses.asdict(analysis.calibration(_ERROR_IOU)),
        }
    )


def pooled(parts: list[tuple[COCO, list[dict[str, Any]]]]) -> tuple[COCO, list[dict[str, Any]]]:
    """Datasets of the same classes as one; images and objects are numbered anew, and classes as in
    the first.

    Args:
        parts: of each the annotations, and detections in COCO's format for results.

    Raises:
        StudyError: see :func:`check_classes`.
    """
    truths = [truth for truth, _ in parts]
    check_classes({f"dataset {place + 1}": truth for place, truth in enumerate(truths)})
    classes = sorted(truths[0].cats)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for truth, detections in parts:
        kinds = dict(zip(sorted(truth.cats), classes))
        numbers = {number: len(images) + place + 1 for place, number in enumerate(truth.imgs)}
        images += [{**image, "id": numbers[number]} for number, image in truth.imgs.items()]
        objects += [
            {**each, "id": len(objects) + place + 1, **_renumbered(each, numbers, kinds)}
            for place, each in enumerate(truth.anns.values())
        ]
        found += [{**each, **_renumbered(each, numbers, kinds)} for each in detections]
    whole = COCO()
    whole.dataset = {
        "images": images,
        "annotations": objects,
        "categories": truths[0].dataset["categories"],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        whole.createIndex()
    return whole, found


def check_classes(truths: Mapping[str, COCO]) -> None:
    """That datasets can be counted as one: a class has the same place in all, by number.

    Args:
        truths: {name: annotations}.

    Raises:
        StudyError: two have other classes, or in another order.
    """
    names = {
        name: [truth.cats[number]["name"] for number in sorted(truth.cats)]
        for name, truth in truths.items()
    }
    (first, expected), *others = names.items()
    for name, found in others:
        if found != expected:
            raise StudyError(
                f"evaluate: {first} has the classes {', '.join(expected)}, and {name} has "
                f"{', '.join(found)}; expected the same in the same order, since AP is of all "
                "datasets together"
            )


def _renumbered(
    each: Mapping[str, Any], images: Mapping[int, int], classes: Mapping[int, int]
) -> dict[str, int]:
    return {
        "image_id": images[each["image_id"]],
        "category_id": classes[each["category_id"]],
    }
