"""Which cells of the pyramid the imitation baselines compare, for one image. Nothing has a
gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

from ...lengths import zip_equal
from ...losses import elementwise_iou
from ..ld.valuable_region import box_chunks, inside_any_box

CELLS_OF_LEVEL = 14
"""A level is for boxes from so many of its cells wide up to twice as many (square root of the
area): the rule of Faster R-CNN's pyramid (Lin et al., "Feature Pyramid Networks", CVPR 2017,
equation 1, as mmdetection has it: 56 pixels at stride 4)."""
CANDIDATES = 1000
"""Predictions per level that NMS looks at, those of the largest disagreement."""


@torch.no_grad()
def object_masks(priors: list[Tensor], num_anchors: int, gt_boxes: Tensor) -> list[Tensor]:
    """Cells whose centre is in an object.

    Args:
        priors: L x (Hl*Wl*A, 4).
        num_anchors: A.
        gt_boxes: (M, 4), may be empty.

    Returns:
        L x (Hl*Wl,) bool
    """
    return [inside_any_box([anchors[::num_anchors]], gt_boxes) for anchors in priors]


@torch.no_grad()
def near_object_masks(
    priors: list[Tensor],
    num_anchors: int,
    gt_boxes: Tensor,
    levels: Tensor | None = None,
    part: float = 0.5,
) -> list[Tensor]:
    """FGFI's: cells with an anchor that fits an object nearly as well as the level's best.

    Args:
        priors: L x (Hl*Wl*A, 4).
        num_anchors: A.
        gt_boxes: (M, 4), may be empty.
        levels: (M,), the one level of each object; None is all levels.
        part: an anchor's IoU with the object must exceed this part of the largest one that an
            anchor of the level has.

    Returns:
        L x (Hl*Wl,) bool
    """
    masks = []
    for level, anchors in enumerate(priors):
        near = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
        objects = gt_boxes if levels is None else gt_boxes[levels == level]
        for boxes in box_chunks(objects, len(anchors)):
            overlaps = elementwise_iou(anchors[None], boxes[:, None])  # (M, Hl*Wl*A)
            best = overlaps.amax(dim=1, keepdim=True)  # (M, 1)
            near |= (overlaps > part * best).any(dim=0)
        masks.append(near.view(-1, num_anchors).any(dim=1))
    return masks


def object_levels(gt_boxes: Tensor, strides: list[int]) -> Tensor:
    """(M,) int64: the one level of each of (M, 4) objects, by :data:`CELLS_OF_LEVEL`; smaller ones
    are on the first level, larger ones on the last."""
    size = (gt_boxes[:, 2:] - gt_boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()  # (M,)
    levels = (size / (CELLS_OF_LEVEL * strides[0]) + 1e-6).log2().floor()
    return levels.clamp(0, len(strides) - 1).long()


@torch.no_grad()
def box_masks(gt_boxes: Tensor, strides: list[int], sizes: list[tuple[int, int]]) -> list[Tensor]:
    """DeFeat's: the cells from the one that an object begins in to the one before it ends in, at
    least one, on the one level of the object.

    Args:
        gt_boxes: (M, 4), may be empty.
        strides: L.
        sizes: L x (Hl, Wl).

    Returns:
        L x (Hl*Wl,) bool
    """
    levels = object_levels(gt_boxes, strides)
    masks = []
    for level, (stride, (height, width)) in enumerate(zip_equal(strides=strides, sizes=sizes)):
        cells = (gt_boxes[levels == level] / stride).floor()  # (M, 4)
        rows = _between(cells[:, 1], cells[:, 3], height)  # (M, Hl)
        columns = _between(cells[:, 0], cells[:, 2], width)  # (M, Wl)
        masks.append((rows.T @ columns > 0).flatten())
    return masks


def _between(first: Tensor, end: Tensor, count: int) -> Tensor:
    """(M, count) of 0 and 1: the cells from ``first`` up to, without, ``end``, at least one."""
    first = first.clamp(0, count - 1)[:, None]
    cells = torch.arange(count, device=first.device)
    return ((cells >= first) & (cells < torch.maximum(end[:, None], first + 1))).to(first)


@torch.no_grad()
def disagreement_masks(
    logits: list[Tensor],
    teacher_logits: list[Tensor],
    boxes: list[Tensor],
    teacher_boxes: list[Tensor],
    num_anchors: int,
    *,
    topk: int = 10,
    nms_thresh: float = 0.3,
) -> list[Tensor]:
    """General instances (GI): where student and teacher disagree most about a class score.

    The disagreement of a prediction is the largest of |sig(t_k) - sig(s_k)| over the classes k. Its
    box is the one of whichever has the larger score of that class. On each level the predictions
    are thinned by NMS, and the ``topk`` that disagree most are kept.

    Args:
        logits, teacher_logits: L x (Hl*Wl*A, K).
        boxes, teacher_boxes: L x (Hl*Wl*A, 4).
        num_anchors: A.
        topk: predictions per level.
        nms_thresh: IoU.

    Returns:
        L x (Hl*Wl,) bool: cells with a prediction that is kept.
    """
    masks = []
    for ours, theirs, our_boxes, their_boxes in zip_equal(
        logits=logits, teacher_logits=teacher_logits, boxes=boxes, teacher_boxes=teacher_boxes
    ):
        difference = theirs.sigmoid() - ours.sigmoid()  # (Hl*Wl*A, K)
        disagreement, index = difference.abs().max(dim=1)  # (Hl*Wl*A,) both
        teacher_better = difference.gather(1, index[:, None]) > 0  # (Hl*Wl*A, 1)
        candidates = torch.where(teacher_better, their_boxes, our_boxes)
        values, order = disagreement.topk(min(CANDIDATES, len(disagreement)))
        kept = order[nms(candidates[order], values, nms_thresh)[:topk]]
        mask = torch.zeros_like(disagreement, dtype=torch.bool)
        mask[kept] = True
        masks.append(mask.view(-1, num_anchors).any(dim=1))
    return masks
