"""Losses shared by detectors and methods: pure functions on tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from fvcore.nn import smooth_l1_loss
from torch import Tensor
from torchvision.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
)


def _overlap(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union areas of (..., 4) boxes with boxes in the same place, (...)."""
    low = torch.maximum(boxes[..., :2], targets[..., :2])
    high = torch.minimum(boxes[..., 2:], targets[..., 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    target_area = (targets[..., 2:] - targets[..., :2]).prod(dim=-1)
    return intersection, area + target_area - intersection


def elementwise_iou(boxes: Tensor, targets: Tensor, eps: float = 1e-6) -> Tensor:
    """IoU of each box with the box in the same place.

    Args:
        boxes: (..., 4) xyxy.
        targets: (..., 4) xyxy.
        eps: smallest union, as mmdetection clamps it (torchvision and fvcore add theirs instead,
            which differs for boxes smaller than a pixel).

    Returns:
        (...)
    """
    intersection, union = _overlap(boxes, targets)
    return intersection / union.clamp(min=eps)


def elementwise_giou(boxes: Tensor, targets: Tensor, eps: float = 1e-6) -> Tensor:
    """Generalised IoU (Rezatofighi et al., CVPR 2019) of each box with that in the same place.

    Args and returns as :func:`elementwise_iou`. Unlike the losses of fvcore it takes any boxes,
    also those with x2 < x1, which an early student predicts.
    """
    intersection, union = _overlap(boxes, targets)
    union = union.clamp(min=eps)
    low = torch.minimum(boxes[..., :2], targets[..., :2])
    high = torch.maximum(boxes[..., 2:], targets[..., 2:])
    enclosing = (high - low).clamp(min=0).prod(dim=-1).clamp(min=eps)
    return intersection / union - (enclosing - union) / enclosing


def modulated_binary_cross_entropy(logits: Tensor, target_logits: Tensor, beta: float) -> Tensor:
    """``|sigmoid(t) - sigmoid(s)|^beta * BCE(sigmoid(s), sigmoid(t))`` per element.

    The class loss of BCKD (equations 5 and 6) and of CrossKD. Both factors carry gradient to
    ``logits``, none does to ``target_logits``.

    Args:
        logits: (...) of the student, s.
        target_logits: (...) of the teacher, t.
        beta: exponent of the modulating factor; 0 is plain binary cross-entropy.

    Returns:
        (...)
    """
    soft_labels = target_logits.detach().sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, soft_labels, reduction="none")
    if beta == 0:
        return entropy
    return (soft_labels - logits.sigmoid()).abs().pow(beta) * entropy


BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")
"""The values detectron2's RetinaNet takes for ``box_reg_loss_type``."""


def dense_box_loss(
    kind: str,
    deltas: Tensor,
    target_deltas: Tensor,
    boxes: Tensor,
    target_boxes: Tensor,
    smooth_l1_beta: float = 0.0,
) -> Tensor:
    """Sum of a box regression loss over P matched predictions.

    Args:
        kind: one of :data:`BOX_LOSSES`; "smooth_l1" compares the codes, the others the boxes.
        deltas, target_deltas, boxes, target_boxes: (P, 4) each.
        smooth_l1_beta: where smooth L1 becomes linear; 0 is L1.

    Returns:
        scalar
    """
    if kind == "smooth_l1":
        return smooth_l1_loss(deltas, target_deltas, beta=smooth_l1_beta, reduction="sum")
    loss = {
        "giou": generalized_box_iou_loss,
        "diou": distance_box_iou_loss,
        "ciou": complete_box_iou_loss,
    }[kind]
    return loss(boxes, target_boxes, reduction="sum")
