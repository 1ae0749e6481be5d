"""COCO's average precision on a few images, whatever the evaluator of the config."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.structures import BoxMode, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .results import ScoreFacts

Objects = list[dict[str, Any]]


def scores(
    images: Sequence[Mapping[str, Any]], found: Sequence[Instances], classes: Mapping[int, int]
) -> ScoreFacts:
    """How well detections match the objects of the images that they were found in.

    Args:
        images: dataset dicts of detectron2, with annotations.
        found: for each of them, in the pixels of the file.
        classes: {class of the detector: class of the dataset}; detections of other classes count
            only where classes do not matter. {} if none corresponds.
    """
    truth = [
        _entry(
            index,
            annotation["category_id"],
            BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS),
            iscrowd=int(annotation.get("iscrowd", 0)),
        )
        for index, image in enumerate(images)
        for annotation in image["annotations"]
    ]
    detections, any_class = [], []
    for index, instances in enumerate(found):
        boxes = instances.pred_boxes.tensor.cpu()
        corners = BoxMode.convert(boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
        numbers = instances.pred_classes.tolist()
        for box, score, number in zip(corners, instances.scores.tolist(), numbers):
            any_class.append(_entry(index, 0, box, score=score))
            if number in classes:
                detections.append(_entry(index, classes[number], box, score=score))
    objects = [entry for entry in truth if not entry["iscrowd"]]
    precision = _average_precision(truth, detections, len(images)) if classes else (None, None)
    one_class = [{**entry, "category_id": 1} for entry in truth]
    return ScoreFacts(
        num_images=len(images),
        num_objects=len(objects),
        num_detections=len(any_class),
        best_score=sum(float(max(x.scores, default=0)) for x in found) / max(len(found), 1),
        ap=precision[0],
        ap50=precision[1],
        ap50_any_class=_average_precision(one_class, any_class, len(images))[1],
    )


def _entry(image: int, category: int, box: Any, **more: Any) -> dict[str, Any]:
    # Numbers of COCO's own code begin with 1: it takes an id of 0 for none.
    box = [float(value) for value in box]
    return {"image_id": image + 1, "category_id": category + 1, "bbox": box, **more}


def _average_precision(
    truth: Objects, detections: Objects, num_images: int
) -> tuple[float | None, float | None]:
    """AP and AP50 in 0 to 100; None without objects."""
    if all(entry["iscrowd"] for entry in truth):
        return None, None
    if not detections:
        return 0.0, 0.0
    areas = ({**entry, "area": entry["bbox"][2] * entry["bbox"][3]} for entry in truth)
    numbers = {entry["category_id"] for entry in (*truth, *detections)}
    dataset = COCO()
    dataset.dataset = {
        "info": {},
        "images": [{"id": index + 1} for index in range(num_images)],
        "annotations": [{**entry, "id": index + 1} for index, entry in enumerate(areas)],
        "categories": [{"id": number, "name": str(number)} for number in sorted(numbers)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.createIndex()
        evaluation = COCOeval(dataset, dataset.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * float(evaluation.stats[0]), 100 * float(evaluation.stats[1])
