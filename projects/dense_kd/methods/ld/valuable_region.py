"""Where LD distils localisation besides the positives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...detectors.assignment.adaptive import nearest_anchors, usual_fit
from ...detectors.assignment.locations import on_images
from ...losses import elementwise_diou
from ..base.objects import box_chunks, stacked_boxes


def valuable_region(
    priors: list[Tensor], gt_boxes: Tensor, image_size: tuple[int, int], **options: Any
) -> Tensor:
    """(R,): :func:`valuable_regions` of one image with the boxes (M, 4)."""
    return valuable_regions(priors, [gt_boxes], [image_size], **options)[0]


@torch.no_grad()
def valuable_regions(
    priors: list[Tensor],
    gt_boxes: list[Tensor],
    image_sizes: list[tuple[int, int]],
    *,
    overlap: str = "iof",
    topk: int = 9,
    low: float = 0.25,
    padding_multiple: int | None = 32,
) -> Tensor:
    """The valuable localisation region (VLR) of images, as the weights of their anchors.

    Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022.
    With t the threshold of ATSS for a box (mean plus standard deviation of the IoU of its ``topk``
    nearest anchors of each level), an anchor is in the region of the box if
    ``low * t <= DIoU < t``, wherever its centre is.

    The released code takes for the first part of DIoU the intersection divided by the area of
    the anchor, not of the union. Its region is therefore wider where anchors are large, and
    around the border of a box where they are small.

    Args:
        priors: L x (Hl*Wl*A, 4).
        gt_boxes: N x (M, 4), each may be empty.
        image_sizes: N x (height, width) without padding.
        overlap: first part of DIoU: "iof" (code) or "iou" (paper).
        topk: nearest anchors per box and level.
        low: in units of t.
        padding_multiple: anchors in the padding beyond it are in no region, see
            :func:`on_images`.

    Returns:
        (N, R): the largest IoU of an anchor with a box in whose region it is; 0 outside of all.
    """
    valid = on_images(priors, image_sizes, padding_multiple)  # (N, R)
    anchors = torch.cat(priors)  # (R, 4)
    best = anchors.new_zeros(valid.shape)
    # A box without area, which fills up the rows of images, is in no region.
    for boxes in box_chunks(stacked_boxes(gt_boxes), valid.numel()):
        diou, iou = elementwise_diou(anchors, boxes[..., None, :], first=overlap)  # (N, M, R)
        near = nearest_anchors(priors, boxes, topk, valid)  # (N, M, candidates)
        counts = valid[:, None].expand_as(iou).gather(2, near)
        threshold = usual_fit(iou.gather(2, near), counts)  # (N, M, 1); NaN is above nothing
        inside = (diou >= low * threshold) & (diou < threshold)
        best = torch.maximum(best, torch.where(inside, iou, 0.0).amax(dim=1))
    return torch.where(valid, best, 0.0)
