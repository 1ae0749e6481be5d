"""A detector from tensors to tensors, for programs that know nothing of detectron2."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..detectors.base.dense import DenseDetector
from ..detectors.base.images import padding
from .suppression import suppressed

INPUTS = ("images", "sizes")
RAW, DETECTIONS = "raw", "detections"
OUTPUTS = {RAW: ("boxes", "scores"), DETECTIONS: ("boxes", "scores", "classes", "counts")}
"""Names of what goes in and comes out, in order."""


class Raw(NamedTuple):
    """What a detector predicts everywhere.

    Attributes:
        boxes: (N, R, 4) xyxy in the pixels of the images, not clipped.
        scores: (N, R, K), of each class.
    """

    boxes: Tensor
    scores: Tensor


class Detections(NamedTuple):
    """What it detects; M is ``max_detections_per_image``.

    Attributes:
        boxes: (N, M, 4) xyxy in the pixels of the images, within them.
        scores: (N, M), in falling order.
        classes: (N, M) int64.
        counts: (N,) int64, of the detections of each image; what follows them is 0.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    counts: Tensor


class DetectionGraph(nn.Module):
    """A :class:`DenseDetector` whose pass is a graph of operations on tensors of any size.

    It does what the detector does in inference with a batch of images, of several sizes too:
    normalising, decoding and suppression are in it, resizing and reading are not.
    """

    def __init__(self, detector: DenseDetector, outputs: str = DETECTIONS):
        """
        Args:
            detector: is put into eval mode.
            outputs: :data:`RAW` or :data:`DETECTIONS`.

        Raises:
            ValueError: there are no such outputs.
        """
        super().__init__()
        if outputs not in OUTPUTS:
            raise ValueError(f"outputs={outputs!r}: expected one of {tuple(OUTPUTS)}")
        self.detector = detector
        self.outputs = outputs
        self.eval()  # also itself: exporters put back the mode of the whole

    @property
    def multiple(self) -> int:
        """What height and width of a batch are multiples of."""
        return padding(self.detector.backbone)[0]

    def forward(self, images: Tensor, sizes: Tensor) -> Any:
        """
        Args:
            images: (N, C, H, W), pixels in the detector's ``input_format``, as they are read (of
                bytes from 0 to 255); H and W are multiples of ``multiple``. What is right of
                and below an image may be anything.
            sizes: (N, 2) int64, height and width of each image without that.

        Returns:
            :class:`Raw` or :class:`Detections`, as a tuple.
        """
        detector = self.detector
        features = detector.pyramid(self._normalised(images, sizes))
        dense = detector.pass_of(detector.maps_of_head(features), [])
        scores, factors = detector.detection_scores(dense)
        boxes = [
            detector.decode(deltas, priors.expand_as(deltas))
            for deltas, priors in zip(dense.deltas, dense.priors)
        ]
        if self.outputs == RAW:
            if factors is not None:
                scores = [x * factor.unsqueeze(-1) for x, factor in zip(scores, factors)]
            return tuple(Raw(torch.cat(boxes, dim=1), torch.cat(scores, dim=1)))
        levels = [
            self._candidates(boxes[i], scores[i], None if factors is None else factors[i])
            for i in range(len(boxes))
        ]
        return tuple(self._detections([torch.cat(each, dim=1) for each in zip(*levels)], sizes))

    def _normalised(self, images: Tensor, sizes: Tensor) -> Tensor:
        detector = self.detector
        height, width = images.shape[2:]
        rows, columns = (torch.arange(n, device=images.device) for n in (height, width))
        inside = (rows < sizes[:, :1])[:, None, :, None] & (columns < sizes[:, 1:])[:, None, None]
        return (images - detector.pixel_mean) / detector.pixel_std * inside

    def _candidates(
        self, boxes: Tensor, scores: Tensor, factors: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, T, 4), scores (N, T) and classes (N, T) of the best T of a level."""
        detector = self.detector
        T, K = detector.test_topk_candidates, detector.num_classes
        # There are T at least, whatever the size of the map.
        flat = scores.flatten(1)  # (N, R * K)
        flat = torch.cat([flat, torch.zeros_like(flat[:, :1]).expand(-1, T)], dim=1)
        best, order = flat.topk(T, dim=1)
        best = torch.where(best > detector.test_score_thresh, best, torch.zeros_like(best))
        order = torch.where(best > 0, order, torch.zeros_like(order))
        index = torch.div(order, K, rounding_mode="floor")
        if factors is not None:
            best = best * factors.gather(1, index)
        return _rows(boxes, index), best, order - index * K

    def _detections(self, candidates: list[Tensor], sizes: Tensor) -> Detections:
        """Of boxes, scores and classes of all levels."""
        boxes, scores, classes = candidates
        detector, K = self.detector, self.detector.num_classes
        limits = sizes.to(boxes.dtype).flip(1).repeat(1, 2).unsqueeze(1)  # (N, 1, 4)
        clipped = torch.minimum(boxes.clamp(min=0), limits)
        if detector.clip_before_nms:
            boxes = clipped
            scores = scores * _not_empty(boxes)
        kept = suppressed(boxes, scores, classes, detector.test_nms_thresh, K)
        M = detector.max_detections_per_image
        scores, order = (scores * kept).topk(M, dim=1)
        # A box of which nothing is within the image is left out in the end, as by detectron2.
        chosen = _rows(clipped, order)
        scores, last = (scores * _not_empty(chosen)).topk(M, dim=1)
        found = scores > 0
        return Detections(
            _rows(chosen, last) * found.unsqueeze(-1),
            scores,
            classes.gather(1, order).gather(1, last) * found,
            found.sum(dim=1),
        )


def _rows(boxes: Tensor, index: Tensor) -> Tensor:
    """(N, P, 4) of (N, R, 4) boxes and (N, P)."""
    return boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4))


def _not_empty(boxes: Tensor) -> Tensor:
    """(N, P) bool of (N, P, 4) boxes."""
    low, high = boxes.split(2, dim=-1)
    return (high > low).all(dim=-1)
