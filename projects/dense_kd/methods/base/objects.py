"""The boxes of objects, of several images at a time, and how they are compared with many places."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...detectors.assignment.locations import box_centers

PAIRS_AT_ONCE = 2**21
"""Pairs of a box and a place (an anchor, a prediction, a point) that are compared at a time: more
boxes take longer, not more memory."""


def stacked_boxes(gt_boxes: list[Tensor], padding: float = 0.0) -> Tensor:
    """(N, M, 4) of N x (Mn, 4), with M the largest Mn.

    Args:
        gt_boxes: of images.
        padding: all coordinates of the boxes, without area, that images of fewer boxes have more.
    """
    return nn.utils.rnn.pad_sequence(gt_boxes, batch_first=True, padding_value=padding)


def chunks(num_boxes: int, num_places: int) -> Iterator[slice]:
    """Slices of boxes that make at most ``PAIRS_AT_ONCE`` pairs with the places, or of one box.

    Args:
        num_boxes: of each image.
        num_places: that a box of each image is compared with, of all images together.
    """
    size = max(1, PAIRS_AT_ONCE // max(1, num_places))
    for start in range(0, num_boxes, size):
        yield slice(start, start + size)


def box_chunks(gt_boxes: Tensor, num_places: int) -> Iterator[Tensor]:
    """The (..., M, 4) boxes in parts, see :func:`chunks`; none if there is no box."""
    for chunk in chunks(gt_boxes.shape[-2] if gt_boxes.numel() > 0 else 0, num_places):
        yield gt_boxes[..., chunk, :]


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """(..., M, P) bool: whether points (P, 2) are strictly within boxes (..., M, 4)."""
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    return ((points > low) & (points < high)).all(dim=-1)


@torch.no_grad()
def points_in_any_box(points: Tensor, gt_boxes: Tensor) -> Tensor:
    """(..., P) bool: whether points (P, 2) are strictly within one of the boxes (..., M, 4)."""
    shape = (*gt_boxes.shape[:-2], len(points))
    inside = torch.zeros(shape, dtype=torch.bool, device=points.device)
    for boxes in box_chunks(gt_boxes, inside.numel()):
        inside |= points_in_boxes(points, boxes).any(dim=-2)
    return inside


def inside_any_box(priors: list[Tensor], gt_boxes: Tensor) -> Tensor:
    """(..., R) bool: priors whose centre is in a box.

    Args:
        priors: L x (Hl*Wl*A, 4).
        gt_boxes: (..., M, 4), may be empty.
    """
    return points_in_any_box(box_centers(torch.cat(priors)), gt_boxes)
