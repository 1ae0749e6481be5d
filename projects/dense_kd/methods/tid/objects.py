"""The objects of a batch, and the anchors near them, as TID looks at them."""

from __future__ import annotations

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ...detectors.assignment.adaptive import nearest_anchors, usual_fit
from ...detectors.boxes.coders import LARGEST
from ...losses import elementwise_iou
from ...outputs import DensePass
from ..base.objects import box_chunks, stacked_boxes

ELSEWHERE = -LARGEST
"""A coordinate that is not in an image, and that no predicted box reaches beyond."""
ATSS_TOPK = 9


def stacked_objects(
    ground_truth: list[Instances], known_classes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The objects of a batch, as many of each image.

    What is no object comes behind those that are, has the class -1, and is a box without area
    elsewhere, which overlaps nothing and is near nothing.

    Args:
        ground_truth: N Instances with gt_boxes and gt_classes.
        known_classes: (K',), the classes that count; objects of others are none. None is all.

    Returns:
        (N, M, 4) boxes and (N, M) classes, indices into ``known_classes``.
    """
    boxes = [truth.gt_boxes.tensor for truth in ground_truth]
    classes = [truth.gt_classes for truth in ground_truth]
    if known_classes is not None:
        places = torch.arange(len(known_classes), device=known_classes.device)
        for image, labels in enumerate(classes):
            same = labels[:, None] == known_classes  # (M, K')
            known = torch.where(same, places, -1).amax(dim=1)  # (M,)
            order = (known < 0).byte().argsort(stable=True)
            classes[image], boxes[image] = known[order], boxes[image][order]
    stacked = nn.utils.rnn.pad_sequence(classes, batch_first=True, padding_value=-1)
    return torch.where(stacked[..., None] < 0, ELSEWHERE, stacked_boxes(boxes)), stacked


def usual_overlaps(dense: DensePass, gt_boxes: Tensor, valid: Tensor) -> Tensor:
    """The positive thresholds of ATSS: mean plus deviation of the IoU of the anchors near a box.

    Args:
        dense: whose anchors these are.
        gt_boxes: (..., M, 4).
        valid: (..., P) bool, the locations whose anchors count.

    Returns:
        (..., M); NaN where a single anchor counts.
    """
    anchors = dense.all_priors  # (R, 4)
    of_anchors = valid.repeat_interleave(dense.num_anchors, dim=-1)  # (..., R)
    fits = []
    for boxes in box_chunks(gt_boxes, of_anchors.numel()):
        index = nearest_anchors(dense.priors, boxes, ATSS_TOPK, of_anchors)
        overlaps = elementwise_iou(anchors[index], boxes[..., None, :])  # (..., M, candidates)
        counts = of_anchors[..., None, :].expand(*index.shape[:-1], -1).gather(-1, index)
        fits.append(usual_fit(overlaps, counts)[..., 0])
    return torch.cat(fits, dim=-1)
