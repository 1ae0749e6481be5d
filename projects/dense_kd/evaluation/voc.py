"""Pascal VOC: detectron2's numbers, and beside them COCO's of the same detections."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.evaluation import PascalVOCDetectionEvaluator
from detectron2.evaluation.pascal_voc_evaluation import parse_rec
from detectron2.utils import comm
from pycocotools.coco import COCO

from .coco import METRICS, check_implementation, evaluate_boxes, percent
from .errors import EvaluationError
from .metrics import VOC_METRICS

__all__ = ["VOCEvaluator", "annotations_as_coco"]

# Neither library evaluates an empty list; this changes no number of what was found.
_NOTHING = {"image_id": 0, "category_id": 0, "bbox": [0.0, 0.0, 0.0, 0.0], "score": 0.0}


class VOCEvaluator(PascalVOCDetectionEvaluator):
    """AP as Pascal VOC defines it, with detectron2's evaluator, and as COCO does.

    Papers that print one number for VOC mean AP50 of the first, those with several IoUs the second.
    They differ: VOC 2007 looks at 11 recalls and COCO at 101, and COCO takes at most 100 detections
    of an image.
    """

    metric_names = (*VOC_METRICS, *(f"bbox_coco/{name}" for name in METRICS))

    def __init__(self, dataset_name: str, *, implementation: str = "auto"):
        """
        Args:
            dataset_name: of detectron2's catalog, registered as its ``register_pascal_voc`` does.
            implementation: of COCO's metrics, as of :class:`.coco.COCOEvaluator`.

        Raises:
            ValueError: there is no such implementation.
            MissingExtraError: hotcoco is asked for, but not installed.
        """
        check_implementation(implementation)
        super().__init__(dataset_name)
        self.implementation = implementation
        self._detections: list[tuple[str, dict[str, Any]]] = []

    def reset(self) -> None:
        """Forget all detections."""
        super().reset()
        self._detections = []

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take in the detections of a batch, as a detector returns them."""
        super().process(inputs, outputs)
        for image, output in zip(inputs, outputs):
            found = output["instances"].to("cpu")
            boxes = found.pred_boxes.tensor.clone()
            boxes[:, 2:] -= boxes[:, :2]
            self._detections.extend(
                (image["image_id"], {"category_id": c, "bbox": box, "score": score})
                for box, score, c in zip(
                    boxes.tolist(), found.scores.tolist(), found.pred_classes.tolist()
                )
            )

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """The metrics of all images of the dataset.

        Returns:
            {"bbox": {"AP", "AP50", "AP75"}} of detectron2's evaluator, and "bbox_coco" with
            :data:`.coco.METRICS`, all in percent, NaN where undefined; None on other processes than
            the first.

        Raises:
            EvaluationError: an annotation has a class that the dataset has not.
        """
        gathered = comm.gather(self._detections, dst=0)
        results = super().evaluate()
        if results is None:
            return None
        with open(self._image_set_path) as file:
            images = [line.split()[0] for line in file if line.strip()]
        truth = annotations_as_coco(images, self._anno_file_template, list(self._class_names))
        numbers = {image: index for index, image in enumerate(images)}
        detections = [
            {"image_id": numbers[image], **detection}
            for image, detection in itertools.chain.from_iterable(gathered)
        ]
        detections = detections or [_NOTHING]
        stats = evaluate_boxes(truth, detections, implementation=self.implementation).stats
        of_coco = dict(zip(METRICS, map(percent, stats)))
        return OrderedDict([*results.items(), ("bbox_coco", of_coco)])


def annotations_as_coco(images: Sequence[str], template: str, classes: Sequence[str]) -> COCO:
    """Annotations of Pascal VOC in COCO's form.

    A box is [x - 1, y - 1, width, height] in pixels, as detectron2 reads it. An object that is
    marked difficult is to be ignored, as in VOC: it becomes a crowd [OUR], so detections in it
    count neither way.

    Args:
        images: their names, which get the ids 0, 1, ...
        template: of the path of an image's XML file, with ``{}`` for its name.
        classes: their names, which get the ids 0, 1, ...

    Raises:
        EvaluationError: an object has another class.
    """
    indices = {name: index for index, name in enumerate(classes)}
    annotations: list[dict[str, Any]] = []
    for image, name in enumerate(images):
        path = template.format(name)
        for each in parse_rec(path):
            if each["name"] not in indices:
                raise EvaluationError(
                    f"{path} has an object of the class {each['name']!r}, expected one of "
                    f"{', '.join(classes)}"
                )
            x1, y1, x2, y2 = each["bbox"]
            width, height = x2 - x1 + 1, y2 - y1 + 1
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": indices[each["name"]],
                    "bbox": [x1 - 1, y1 - 1, width, height],
                    "area": width * height,
                    "iscrowd": int(each["difficult"]),
                }
            )
    truth = COCO()
    truth.dataset = {
        "images": [{"id": index} for index in range(len(images))],
        "categories": [{"id": index, "name": name} for name, index in indices.items()],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth
