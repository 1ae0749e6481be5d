"""What a detector is worth without its best predictions (PGD, Figure 3)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from detectron2.structures import Instances
from torch import Tensor

from ..detectors.assignment.locations import box_centers
from ..methods.base.objects import points_in_boxes
from ..methods.pgd.weighting import prediction_quality
from ..options import is_share
from ..outputs import DensePass
from .errors import DiagnosticsError

FRACTIONS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Parts of the predictions in each object that are masked."""

IOU_EXPONENT = 0.8
"""xi of the quality, the default of PGD for its classification branch."""


@torch.no_grad()
def without_best(
    dense: DensePass,
    ground_truth: Sequence[Instances],
    fraction: float,
    *,
    iou_exponent: float = IOU_EXPONENT,
) -> DensePass:
    """The pass without the best predictions of each object; all their class scores are 0.

    Of the n_g predictions of all levels whose centre is in the box of object g, with class c, the
    ceil(``fraction`` * n_g) of the highest quality

        q_ig = score_ic^(1 - xi) * IoU(box_i, g)^xi

    are masked. The paper masks the "top-X% predictions" by quality "within the GT box region"
    before NMS; that X % are those of each object, rounded up, is ours, and xi is open there.

    Args:
        dense: of a detector.
        ground_truth: N Instances with gt_boxes and gt_classes, of the detector's classes.
        fraction: X / 100, from 0 to 1.
        iou_exponent: xi in [0, 1].

    Raises:
        DiagnosticsError: ``fraction`` or ``iou_exponent`` is not from 0 to 1.
    """
    if not is_share(fraction) or not is_share(iou_exponent):
        raise DiagnosticsError(
            f"fraction={fraction!r} and iou_exponent={iou_exponent!r}: expected numbers from 0 to 1"
        )
    centers = torch.cat([box_centers(priors) for priors in dense.priors])  # (R, 2)
    logits = torch.cat(dense.logits, dim=1)  # (N, R, K)
    boxes = torch.cat(dense.boxes, dim=1)  # (N, R, 4)
    masked = torch.stack([
        _best_of_image(centers, scores, decoded, truth, fraction, iou_exponent)
        for scores, decoded, truth in zip(logits.sigmoid(), boxes, ground_truth)
    ])  # fmt: skip
    left = logits.masked_fill(masked[..., None], -math.inf)
    return dataclasses.replace(dense, logits=[*left.split(dense.num_predictions, dim=1)])


def _best_of_image(
    centers: Tensor,
    scores: Tensor,
    boxes: Tensor,
    truth: Instances,
    fraction: float,
    iou_exponent: float,
) -> Tensor:
    """(R,) bool: whether a prediction is among the best of an object."""
    masked = torch.zeros(len(centers), dtype=torch.bool, device=centers.device)
    for box, category in zip(truth.gt_boxes.tensor, truth.gt_classes):
        inside = points_in_boxes(centers, box[None])[0].nonzero()[:, 0]
        quality = prediction_quality(
            scores[inside], boxes[inside], box[None], category[None], iou_exponent
        )[0]
        number = math.ceil(fraction * len(inside))
        masked[inside[quality.argsort(descending=True, stable=True)[:number]]] = True
    return masked
