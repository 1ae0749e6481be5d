"""Where LD distils localisation besides the positives."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...detectors.assignment.adaptive import nearest_anchors, usual_fit
from ...detectors.assignment.locations import box_centers, on_image
from ...losses import elementwise_diou

PAIRS_AT_ONCE = 2**21
"""Pairs of a box and an anchor that are compared at a time: more boxes take longer, not more
memory."""


@torch.no_grad()
def valuable_region(
    priors: list[Tensor],
    gt_boxes: Tensor,
    image_size: tuple[int, int],
    *,
    overlap: str = "iof",
    topk: int = 9,
    low: float = 0.25,
    padding_multiple: int | None = 32,
) -> Tensor:
    """The valuable localisation region (VLR) of an image, as the weights of its anchors.

    Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022.
    With t the threshold of ATSS for a box (mean plus standard deviation of the IoU of its ``topk``
    nearest anchors of each level), an anchor is in the region of the box if
    ``low * t <= DIoU < t``, wherever its centre is.

    The released code takes for the first part of DIoU the intersection divided by the area of
    the anchor, not of the union. Its region is therefore wider where anchors are large, and
    around the border of a box where they are small.

    Args:
        priors: L x (Hl*Wl*A, 4).
        gt_boxes: (M, 4), may be empty.
        image_size: (height, width) without padding.
        overlap: first part of DIoU: "iof" (code) or "iou" (paper).
        topk: nearest anchors per box and level.
        low: in units of t.
        padding_multiple: anchors in the padding beyond it are in no region, see
            :func:`on_image`.

    Returns:
        (R,): the largest IoU of an anchor with a box in whose region it is; 0 outside of all.
    """
    valid = [on_image([anchors], image_size, padding_multiple) for anchors in priors]
    levels = [anchors[keep] for anchors, keep in zip(priors, valid)]
    anchors = torch.cat(levels)  # (V, 4)
    best = anchors.new_zeros(len(anchors))
    if len(anchors) < 2:  # their deviation is undefined
        gt_boxes = gt_boxes[:0]
    for boxes in box_chunks(gt_boxes, len(anchors)):
        diou, iou = elementwise_diou(anchors[None], boxes[:, None])  # (M, V) both
        threshold = usual_fit(iou.gather(1, nearest_anchors(levels, boxes, topk)))  # (M, 1)
        if overlap == "iof":
            diou += _of_anchor(iou, anchors, boxes) - iou
        inside = (diou >= low * threshold) & (diou < threshold)
        best = torch.maximum(best, torch.where(inside, iou, torch.zeros_like(iou)).amax(dim=0))
    weights = best.new_zeros(sum(len(keep) for keep in valid))
    weights[torch.cat(valid)] = best
    return weights


@torch.no_grad()
def inside_any_box(priors: list[Tensor], gt_boxes: Tensor) -> Tensor:
    """(R,) bool: priors whose centre is in a box.

    Args:
        priors: L x (Hl*Wl*A, 4).
        gt_boxes: (M, 4), may be empty.
    """
    centers = box_centers(torch.cat(priors))  # (R, 2)
    inside = torch.zeros(len(centers), dtype=torch.bool, device=centers.device)
    for boxes in box_chunks(gt_boxes, len(centers)):
        low, high = boxes[:, None, :2], boxes[:, None, 2:]
        inside |= ((centers > low) & (centers < high)).all(dim=2).any(dim=0)
    return inside


def _of_anchor(iou: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
    """(M, V): the intersections in units of the anchors' areas, from those of the unions."""
    area = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1)  # (V,)
    gt_area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)[:, None]  # (M, 1)
    return iou * (area + gt_area) / (1 + iou) / area


def box_chunks(gt_boxes: Tensor, num_priors: int) -> Iterator[Tensor]:
    """Parts of (M, 4) boxes that make at most ``PAIRS_AT_ONCE`` pairs with the priors."""
    if len(gt_boxes) > 0:
        yield from gt_boxes.split(max(1, PAIRS_AT_ONCE // max(1, num_priors)))
