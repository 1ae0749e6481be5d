"""Whether a file that was written detects what the detector does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..detectors.base.dense import DenseDetector
from .errors import ExportError
from .files import Runner
from .graph import RAW, DetectionGraph

BOX_TOLERANCE = 1e-2
"""Pixels."""

SCORE_TOLERANCE = 1e-4

LARGEST_SHARE_ELSEWHERE = 0.01
"""Of detections that one has and the other has not: a score or an IoU at a threshold may round to
its other side."""

_SMALLER = 0.6


@dataclass(frozen=True)
class Verified:
    """What was compared.

    Attributes:
        batches: (N, height, width) of each batch.
        compared: detections, or predictions of raw outputs.
        elsewhere: detections that only one of both has.
        box_difference: the largest, in pixels.
        score_difference: the largest.
    """

    batches: list[tuple[int, int, int]]
    compared: int
    elsewhere: int
    box_difference: float
    score_difference: float

    def __str__(self) -> str:
        shapes = ", ".join(f"{n} x {h} x {w}" for n, h, w in self.batches)
        elsewhere = f", {self.elsewhere} in one of both only" if self.elsewhere else ""
        return (
            f"batches of {shapes}: {self.compared} compared{elsewhere}; boxes differ by "
            f"{self.box_difference:.1g} pixels at most, scores by {self.score_difference:.1g}"
        )


def batched(images: Sequence[Tensor], multiple: int) -> tuple[Tensor, Tensor]:
    """A batch and its sizes, as :meth:`DetectionGraph.forward` takes them.

    Args:
        images: N x (C, H, W), of any sizes.
        multiple: of height and width of the batch.
    """
    sizes = torch.tensor([list(image.shape[1:]) for image in images])  # (N, 2)
    height, width = (-(-int(size) // multiple) * multiple for size in sizes.amax(dim=0))
    padded = [F.pad(x.float(), (0, width - x.shape[2], 0, height - x.shape[1])) for x in images]
    return torch.stack(padded), sizes


def example_of(images: Sequence[Tensor], multiple: int) -> tuple[Tensor, Tensor]:
    """Two images to make a graph with."""
    return batched([images[0], images[-1]], multiple)


def verify(run: Runner, graph: DetectionGraph, images: Sequence[Tensor]) -> Verified:
    """Compare a file with the detector on batches of one and of several images, in two sizes.

    Args:
        run: the file.
        graph: that was written.
        images: (C, H, W) each, as the detector takes them.

    Raises:
        ExportError: it does otherwise, or nothing was detected that could be compared.
    """
    found = []
    for batch in _batches(images):
        inputs = batched(batch, graph.multiple)
        with torch.no_grad():
            if graph.outputs == RAW:
                pair = _raw_difference(graph(*inputs), run(*inputs))
            else:
                pair = _difference(graph.detector, batch, _cut(run(*inputs)))
        found.append((tuple(inputs[0].shape[i] for i in (0, 2, 3)), *pair))
    return _verified(found)


def verify_model(model: nn.Module, detector: DenseDetector, images: Sequence[Tensor]) -> Verified:
    """As :func:`verify`, of another model that takes and gives what detectron2's models do."""
    found = []
    for batch in _batches(images):
        with torch.no_grad():
            outputs = [x["instances"] for x in model([{"image": image} for image in batch])]
            theirs = [(x.pred_boxes.tensor, x.scores, x.pred_classes) for x in outputs]
            pair = _difference(detector, batch, theirs)
        found.append(((len(batch), *batch[0].shape[1:]), *pair))
    return _verified(found)


def _batches(images: Sequence[Tensor]) -> list[list[Tensor]]:
    smaller = [
        F.interpolate(image[None].float(), scale_factor=_SMALLER).round()[0] for image in images
    ]
    return [[images[0]], [*images, smaller[0]], smaller[:1], smaller]


def _verified(found: Sequence[tuple[Any, int, int, float, float]]) -> Verified:
    shapes, counts, elsewhere, boxes, scores = zip(*found)
    result = Verified([*shapes], sum(counts), sum(elsewhere), max(boxes), max(scores))
    if not result.compared and not result.elsewhere:
        raise ExportError(
            "the detector finds nothing in the images that the export is tried with, so nothing "
            "could be compared; give images with objects of its classes (--images)"
        )
    if (
        result.box_difference > BOX_TOLERANCE
        or result.score_difference > SCORE_TOLERANCE
        or result.elsewhere > LARGEST_SHARE_ELSEWHERE * result.compared
    ):
        raise ExportError(
            f"what was written does not do what the detector does: {result}. Allowed are "
            f"{BOX_TOLERANCE} pixels and {SCORE_TOLERANCE}; nothing is kept"
        )
    return result


def _cut(outputs: Sequence[Tensor]) -> list[_Found]:
    boxes, scores, classes, counts = outputs
    return [(boxes[i, :n], scores[i, :n], classes[i, :n]) for i, n in enumerate(counts.tolist())]


_Difference = tuple[int, int, float, float]
_Found = tuple[Tensor, Tensor, Tensor]


def _raw_difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> _Difference:
    for x, y in zip(ours, theirs):
        if x.shape != y.shape:
            raise ExportError(
                f"what was written gives {tuple(y.shape)}, the detector {tuple(x.shape)}"
            )
    boxes, scores = (float((x - y).abs().max()) for x, y in zip(ours, theirs))
    return ours[1].numel(), 0, boxes, scores


def _difference(
    detector: DenseDetector, images: Sequence[Tensor], found: Sequence[_Found]
) -> _Difference:
    """Of detections, each of which is looked for among those of the other."""
    expected = detector([{"image": image} for image in images])
    compared, elsewhere, box_difference, score_difference = 0, 0, 0.0, 0.0
    for ours, (boxes, scores, classes) in zip(expected, found):
        kept: Any = ours["instances"]
        compared += len(kept)
        apart = (kept.pred_boxes.tensor[:, None] - boxes).abs().amax(dim=-1)  # (n, m)
        unlike = (kept.scores[:, None] - scores).abs()
        near = (apart <= BOX_TOLERANCE) & (unlike <= SCORE_TOLERANCE)
        near &= kept.pred_classes[:, None] == classes
        elsewhere += int((~near.any(dim=1)).sum()) + int((~near.any(dim=0)).sum())
        box_difference = max(box_difference, _largest(apart, near))
        score_difference = max(score_difference, _largest(unlike, near))
    return compared, elsewhere, box_difference, score_difference


def _largest(distances: Tensor, near: Tensor) -> float:
    """Of each detection that has some near, to the nearest; the largest of these."""
    if not near.any():
        return 0.0
    best = distances.masked_fill(~near, float("inf")).amin(dim=1)
    return float(best[best.isfinite()].max())
