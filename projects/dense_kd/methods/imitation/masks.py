"""Which cells of the pyramid the imitation baselines compare, for an image (no dimensions at
"...") or for several. Nothing has a gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...lengths import zip_equal
from ...losses import elementwise_iou
from ..base.objects import box_chunks, inside_any_box

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
        gt_boxes: (..., M, 4), may be empty.

    Returns:
        L x (..., Hl*Wl) bool
    """
    cells = [anchors[::num_anchors] for anchors in priors]
    inside = inside_any_box(cells, gt_boxes)
    return list(inside.split([len(points) for points in cells], dim=-1))


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
        gt_boxes: (..., M, 4), may be empty; those without area are near no cell.
        levels: (..., M), the one level of each object; None is all levels.
        part: an anchor's IoU with the object must exceed this part of the largest one that an
            anchor of the level has.

    Returns:
        L x (..., Hl*Wl) bool
    """
    anchors, sizes = torch.cat(priors), [len(level) for level in priors]
    objects = gt_boxes if levels is None else torch.cat((gt_boxes, levels[..., None]), dim=-1)
    near = torch.zeros(*gt_boxes.shape[:-2], len(anchors), dtype=torch.bool, device=anchors.device)
    for some in box_chunks(objects, near.numel()):
        overlaps = elementwise_iou(anchors, some[..., None, :4])  # (..., M, R)
        found = []
        for level, of_level in enumerate(overlaps.split(sizes, dim=-1)):
            is_near = of_level > part * of_level.amax(dim=-1, keepdim=True)
            if levels is not None:
                is_near = is_near & (some[..., 4:] == level)
            found.append(is_near.any(dim=-2))
        near |= torch.cat(found, dim=-1)
    cells = near.unflatten(-1, (-1, num_anchors)).any(dim=-1)
    return list(cells.split([size // num_anchors for size in sizes], dim=-1))


def object_levels(gt_boxes: Tensor, strides: list[int]) -> Tensor:
    """(..., M) int64: the one level of each of (..., M, 4) objects, by :data:`CELLS_OF_LEVEL`;
    smaller ones are on the first level, larger ones on the last."""
    size = _areas(gt_boxes).sqrt()  # (..., M)
    levels = (size / (CELLS_OF_LEVEL * strides[0]) + 1e-6).log2().floor()
    return levels.clamp(0, len(strides) - 1).long()


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


@torch.no_grad()
def box_masks(gt_boxes: Tensor, strides: list[int], sizes: list[tuple[int, int]]) -> list[Tensor]:
    """DeFeat's: the cells from the one that an object begins in to the one before it ends in, at
    least one, on the one level of the object.

    Args:
        gt_boxes: (..., M, 4), may be empty; those without area have no cells.
        strides: L.
        sizes: L x (Hl, Wl).

    Returns:
        L x (..., Hl*Wl) bool
    """
    levels = torch.where(_areas(gt_boxes) > 0, object_levels(gt_boxes, strides), -1)  # (..., M)
    masks = []
    for level, (stride, (height, width)) in enumerate(zip_equal(strides=strides, sizes=sizes)):
        cells = (gt_boxes / stride).floor()  # (..., M, 4)
        rows = _between(cells[..., 1], cells[..., 3], height)  # (..., M, Hl)
        rows = rows * (levels == level)[..., None]
        columns = _between(cells[..., 0], cells[..., 2], width)  # (..., M, Wl)
        masks.append((rows.transpose(-1, -2) @ columns > 0).flatten(-2))
    return masks


def _between(first: Tensor, end: Tensor, count: int) -> Tensor:
    """(..., count) of 0 and 1: the cells from ``first`` up to, without, ``end``, at least one."""
    first = first.clamp(0, count - 1)[..., None]
    cells = torch.arange(count, device=first.device)
    return ((cells >= first) & (cells < torch.maximum(end[..., None], first + 1))).to(first)


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
        logits, teacher_logits: L x (..., Hl*Wl*A, K).
        boxes, teacher_boxes: L x (..., Hl*Wl*A, 4).
        num_anchors: A.
        topk: predictions per level.
        nms_thresh: IoU.

    Returns:
        L x (..., Hl*Wl) bool: cells with a prediction that is kept.
    """
    candidates, orders = [], []
    for ours, theirs, our_boxes, their_boxes in zip_equal(
        logits=logits, teacher_logits=teacher_logits, boxes=boxes, teacher_boxes=teacher_boxes
    ):
        difference = theirs.sigmoid().sub_(ours.sigmoid())  # (..., Hl*Wl*A, K)
        disagreement, index = difference.abs().max(dim=-1)  # (..., Hl*Wl*A) both
        order = disagreement.topk(min(CANDIDATES, disagreement.shape[-1]), dim=-1).indices
        teacher_better = difference.gather(-1, index[..., None]) > 0  # (..., Hl*Wl*A, 1)
        better = torch.where(teacher_better, their_boxes, our_boxes)
        candidates.append(better.gather(-2, order[..., None].expand(*order.shape, 4)))
        orders.append(order)
    kept = best_apart(candidates, topk, nms_thresh)
    masks = []
    for level, order, keep in zip(logits, orders, kept):
        mask = torch.zeros(level.shape[:-1], dtype=torch.bool, device=level.device)
        masks.append(mask.scatter(-1, order, keep).unflatten(-1, (-1, num_anchors)).any(dim=-1))
    return masks


def best_apart(boxes: list[Tensor], count: int, nms_thresh: float) -> list[Tensor]:
    """The first ``count`` boxes that NMS keeps, without waiting for a GPU to say how many it keeps.

    Args:
        boxes: L x (..., Pl, 4), each list the best first.
        count: at most, of each list.
        nms_thresh: IoU.

    Returns:
        L x (..., Pl) bool
    """
    sizes = [level.shape[-2] for level in boxes]
    longest = max(sizes)
    padded = torch.stack([F.pad(x, (0, 0, 0, longest - n)) for x, n in zip(boxes, sizes)])
    places = torch.arange(longest, device=padded.device)
    is_left = torch.stack([(places < n).expand(padded.shape[1:-1]) for n in sizes])  # (L, ..., P)
    found, counts = [], []
    for _ in range(min(count, longest)):
        best = is_left.byte().argmax(dim=-1, keepdim=True)  # (L, ..., 1), the first that is left
        found.append(best)
        counts.append(is_left.gather(-1, best))
        box = padded.gather(-2, best[..., None].expand(*best.shape, 4))  # (L, ..., 1, 4)
        apart = elementwise_iou(padded, box) <= nms_thresh
        is_left = (is_left & apart).scatter(-1, best, False)
    kept = torch.zeros_like(is_left, dtype=torch.uint8)
    kept = kept.scatter_add(-1, torch.cat(found, dim=-1), torch.cat(counts, dim=-1).byte()) > 0
    return [level[..., :size] for level, size in zip(kept, sizes)]
