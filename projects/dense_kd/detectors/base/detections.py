"""From the scores of all predictions to the detections of an image."""

from __future__ import annotations

from typing import Any

from detectron2.structures import Instances
from torch import Tensor
from torchvision.ops import batched_nms


def best_candidates(scores: Tensor, threshold: float, topk: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best of the scores above a threshold.

    Args:
        scores: (R, K).
        threshold: which they have to exceed.
        topk: how many there are at most.

    Returns:
        (P,) scores in falling order, (P,) their predictions, and (P,) their classes.
    """
    above = scores > threshold
    candidates = above.nonzero()  # (P, 2)
    top, order = scores[above].topk(at_most(candidates.shape[0], topk))
    index, classes = candidates[order].unbind(dim=1)
    return top, index, classes


def at_most(size: int | Tensor, limit: int) -> Any:
    """The smaller of a size and ``limit``.

    A tracer makes a tensor of a size, which has to stay one: a number would be that of the example
    in every image to come.
    """
    return size.clamp(max=limit) if isinstance(size, Tensor) else min(size, limit)


def suppress(
    detections: Instances, nms_threshold: float, max_detections: int, clip_first: bool
) -> Instances:
    """Class-wise non-maximum suppression.

    Args:
        detections: of an image, with pred_boxes, scores and pred_classes.
        nms_threshold: IoU.
        max_detections: kept, those of the highest scores.
        clip_first: clip boxes to the image and drop empty ones before.
    """
    if clip_first:
        detections.pred_boxes.clip(detections.image_size)
        detections = detections[detections.pred_boxes.nonempty()]
    # Not detectron2's function: above 40000 boxes, that of 0.5 asks for the classes as numbers.
    boxes = detections.pred_boxes.tensor.float()
    keep = batched_nms(boxes, detections.scores, detections.pred_classes, nms_threshold)
    return detections[keep[:max_detections]]
