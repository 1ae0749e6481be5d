"""The metrics of CrowdHuman: AP, log-average miss rate MR^-2 and Jaccard index.

Shao and others, "CrowdHuman", arXiv:1805.00123, 2018, section 4.1; the miss rate is that of Dollár
and others, "Pedestrian Detection", PAMI 2012, section 3.1; the Jaccard index that of Chu and
others, "Detection in Crowded Scenes", CVPR 2020, section 4.1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BoxMode
from detectron2.utils import comm

__all__ = ["CrowdHumanEvaluator", "ScoredImage", "average_precision", "jaccard_index", "miss_rate"]

RATES = {
    "MR^-2": (0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1.0),
    "MR^-4": (0.0001, 0.0003, 0.001, 0.0032, 0.01, 0.0316, 0.1, 0.3162, 1.0),
}
"""False positives per image at which miss rates are averaged; they are rounded as the benchmark has
them."""

NAMES = ("AP", "MR", "JI")
"""Of the metrics."""

SCORES = tuple(i / 10 for i in range(10))
"""Thresholds of which the Jaccard index takes the best one."""

_EPS = 1e-6


@dataclasses.dataclass(frozen=True)
class ScoredImage:
    """What is to be found in an image, and what was.

    Attributes:
        objects: (T, 4) corners x1, y1, x2, y2 in pixels, within the image.
        regions: (I, 4), to be ignored.
        boxes: (D, 4), detections by falling score.
        scores: (D,).
    """

    objects: np.ndarray
    regions: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        objects: Any,
        regions: Any,
        boxes: Any,
        scores: Any,
    ) -> ScoredImage:
        """All clipped to the image, and sorted.

        Args:
            size: (height, width) of the image.
            objects, regions, boxes, scores: as of the class, but anywhere and in any order.
        """
        scores = np.asarray(scores, dtype=np.float64).reshape(-1)
        order = np.argsort(-scores, kind="stable")
        clipped = (_clipped(each, size) for each in (objects, regions, boxes))
        objects, regions, boxes = clipped
        return cls(objects, regions, boxes[order], scores[order])


def outcomes(image: ScoredImage, iou: float) -> np.ndarray:
    """(D,) of 1, 0 and -1: a detection is right, wrong, or does not count.

    One after the other, by falling score, each takes the object that it overlaps most, of those
    that none took before. One that overlaps no such object enough, but lies in a region to ignore,
    does not count.

    Args:
        image: of which.
        iou: above which an object is found; also the part of a detection that has to lie in a
            region.
    """
    overlap = _intersections(image.boxes, image.objects, over="union")
    ignored = _lie_in(image.boxes, image.regions, iou)
    result = np.zeros(len(image.boxes), dtype=np.int64)
    for detection, row in enumerate(overlap):
        best = row.argmax() if row.size else 0
        if row.size and row[best] > iou:
            result[detection] = 1
            overlap[:, best] = 0
        elif ignored[detection]:
            result[detection] = -1
    return result


def average_precision(outcomes: np.ndarray, num_objects: int) -> float:
    """The area below precision over recall, between whose points it is a line.

    Args:
        outcomes: (D,) of 1 or 0, detections of all images by falling score.
        num_objects: that are to be found.
    """
    right = np.cumsum(outcomes)
    recall, precision = right / num_objects, right / np.arange(1, len(outcomes) + 1)
    return float(np.sum(np.diff(recall) * (precision[:-1] + precision[1:]) / 2))


def miss_rate(
    outcomes: np.ndarray, num_objects: int, num_images: int, rates: Sequence[float] = RATES["MR^-2"]
) -> float:
    """The geometric mean of the parts of objects that are missed, at rates of false positives.

    A rate that is never reached counts as the last one that is.

    Args:
        outcomes, num_objects: as of :func:`average_precision`.
        num_images: of all detections.
        rates: false positives per image.
    """
    if not len(outcomes):
        return 1.0
    right = np.cumsum(outcomes)
    missed = 1 - right / num_objects
    false = (np.arange(1, len(outcomes) + 1) - right) / num_images
    places = np.minimum(np.searchsorted(false, rates), len(false) - 1)
    with np.errstate(divide="ignore"):  # the mean of 0 and something is 0
        return float(np.exp(np.log(missed[places]).mean()))


def jaccard_index(image: ScoredImage, score: float, iou: float = 0.5) -> tuple[float, bool]:
    """Pairs of objects and detections, over all objects and detections.

    As many are paired as can be, and of the detections first those outside of regions to ignore:
    what lies in one by more than ``iou``, and is not paired, counts neither way.

    Args:
        image: of which.
        score: detections that score above it.
        iou: of a pair, at least.

    Returns:
        the index, and whether there is an object or a detection that counts.
    """
    boxes = image.boxes[image.scores > score]
    overlap = _intersections(boxes, image.objects, over="union")
    inside = _lie_in(boxes, image.regions, iou)
    pairs = largest_matching(overlap >= iou, first=np.flatnonzero(~inside))
    found, paired = [*pairs], [*pairs.values()]
    detections = len(boxes) - np.delete(inside, found).sum()
    unpaired = np.delete(image.objects, paired, axis=0)
    objects = len(image.objects) - _lie_in(unpaired, image.regions, iou).sum()
    index = len(pairs) / (objects + detections - len(pairs) + _EPS)
    return float(index), bool(objects + detections > 0)


def largest_matching(allowed: np.ndarray, first: Sequence[int] | np.ndarray = ()) -> dict[int, int]:
    """As many pairs of a row and a column as possible, none of which shares either with another.

    Args:
        allowed: (rows, columns) of bool, the pairs that may be.
        first: rows to be paired before others: no matching has more of them.

    Returns:
        {row: column}.
    """
    row_of: dict[int, int] = {}
    others = np.setdiff1d(np.arange(len(allowed)), first)
    for start in map(int, [*first, *others]):
        # Breadth first: from a row to the columns it may have, on to the rows that have them.
        came_from: dict[int, int] = {}
        queue = [start]
        for row in queue:
            new = [int(c) for c in np.flatnonzero(allowed[row]) if int(c) not in came_from]
            came_from.update(dict.fromkeys(new, row))
            free = next((column for column in new if column not in row_of), None)
            if free is not None:
                _exchange(row_of, came_from, free, start)
                break
            queue += [row_of[column] for column in new]
    return {row: column for column, row in sorted(row_of.items())}


def _exchange(
    row_of: dict[int, int], came_from: Mapping[int, int], column: int, start: int
) -> None:
    """Give a free column to the row it was reached from, and so on back to the start."""
    had = {row: taken for taken, row in row_of.items()}
    while True:
        row = came_from[column]
        row_of[column] = row
        if row == start:
            return
        column = had[row]


class CrowdHumanEvaluator(DatasetEvaluator):
    """AP, MR^-2 and the Jaccard index (JI) of a dataset with regions to ignore, in percent.

    AP and JI are better when higher, MR when lower.
    """

    metric_names = tuple(f"bbox/{name}" for name in NAMES)
    lower_is_better = ("bbox/MR",)

    def __init__(self, dataset_name: str, *, iou: float = 0.5, miss_rate: str = "MR^-2"):
        """
        Args:
            dataset_name: of detectron2's catalog; its annotations with ``iscrowd`` are regions to
                ignore.
            iou: with a detection, above which an object is found, in (0, 1).
            miss_rate: of :data:`RATES`.

        Raises:
            ValueError: an argument is none of these.
        """
        if not 0 < iou < 1:
            raise ValueError(f"iou={iou}: expected a number between 0 and 1")
        if miss_rate not in RATES:
            raise ValueError(f"miss_rate={miss_rate!r}: expected one of {', '.join(RATES)}")
        self.dataset_name = dataset_name
        self.iou, self.rates = iou, RATES[miss_rate]
        self._found: dict[Any, tuple[np.ndarray, np.ndarray]] = {}

    def reset(self) -> None:
        """Forget all detections."""
        self._found = {}

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take in the detections of a batch, as a detector returns them."""
        for image, output in zip(inputs, outputs):
            found = output["instances"].to("cpu")
            self._found[image["image_id"]] = found.pred_boxes.tensor.numpy(), found.scores.numpy()

    def evaluate(self) -> dict[str, dict[str, float]]:
        """The metrics of all images of the dataset.

        Returns:
            {"bbox": {"AP", "MR", "JI"}} in percent; {} on other processes than the first.

        Raises:
            RuntimeError: images of the dataset were not given, or others were.
        """
        found = self._found
        if comm.get_world_size() > 1:
            parts = comm.gather(found, dst=0)
            if not comm.is_main_process():
                return {}
            found = {key: value for part in parts for key, value in part.items()}
        images = {image["image_id"]: image for image in DatasetCatalog.get(self.dataset_name)}
        if found.keys() != images.keys():
            raise RuntimeError(
                f"{len(found.keys() & images.keys())} of the {len(images)} images of "
                f"{self.dataset_name} were evaluated, and {len(found.keys() - images.keys())} that "
                "are none of its; dataloader.test has to load this dataset"
            )
        scored = [_scored(image, *found[key]) for key, image in images.items()]
        return {"bbox": {k: 100 * v for k, v in metrics(scored, self.iou, self.rates).items()}}


def metrics(
    images: Sequence[ScoredImage], iou: float = 0.5, rates: Sequence[float] = RATES["MR^-2"]
) -> dict[str, float]:
    """AP, MR and JI, in [0, 1]; nan where there is no object.

    Args:
        images: all of a dataset.
        iou: see :func:`outcomes` and :func:`jaccard_index`.
        rates: see :func:`miss_rate`.
    """
    results = np.concatenate([outcomes(image, iou) for image in images])
    scores = np.concatenate([image.scores for image in images])
    order = np.argsort(-scores, kind="stable")
    counted = results[order]
    counted = counted[counted >= 0]
    num_objects = sum(len(image.objects) for image in images)
    if not num_objects:
        return dict.fromkeys(NAMES, float("nan"))
    indices = [_mean_index(images, score, iou) for score in SCORES]
    return {
        "AP": average_precision(counted, num_objects),
        "MR": miss_rate(counted, num_objects, len(images), rates),
        "JI": max(indices),
    }


def _mean_index(images: Sequence[ScoredImage], score: float, iou: float) -> float:
    found = [jaccard_index(image, score, iou) for image in images]
    counted = sum(counts for _, counts in found)
    return sum(index for index, _ in found) / counted if counted else 0.0


def _scored(image: Mapping[str, Any], boxes: np.ndarray, scores: np.ndarray) -> ScoredImage:
    parts: tuple[list[Any], list[Any]] = ([], [])
    for each in image["annotations"]:
        corners = BoxMode.convert(each["bbox"], each["bbox_mode"], BoxMode.XYXY_ABS)
        parts[bool(each.get("iscrowd", 0))].append(corners)
    return ScoredImage.of((image["height"], image["width"]), *parts, boxes, scores)


def _clipped(boxes: Any, size: tuple[int, int]) -> np.ndarray:
    """Within the image; the first corner is a pixel of it, as the benchmark has it."""
    height, width = size
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    boxes[:, :2] = boxes[:, :2].clip(0, (width - 1, height - 1))
    boxes[:, 2:] = boxes[:, 2:].clip(0, (width, height))
    return boxes


def _intersections(a: np.ndarray, b: np.ndarray, over: str) -> np.ndarray:
    """(A, B), each box with each other, over their "union" or the area of the "first"."""
    start = np.maximum(a[:, None, :2], b[None, :, :2])
    end = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (end - start).clip(0).prod(axis=2)
    areas = [(x[:, 2:] - x[:, :2]).clip(0).prod(axis=1) for x in (a, b)]
    whole = areas[0][:, None] + (areas[1][None] - common if over == "union" else 0)
    return common / np.maximum(whole, _EPS)


def _lie_in(boxes: np.ndarray, regions: np.ndarray, part: float) -> np.ndarray:
    """(A,) of bool: by more than this part of their area."""
    return np.any(_intersections(boxes, regions, over="first") > part, axis=1)
