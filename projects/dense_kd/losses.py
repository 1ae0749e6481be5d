"""Losses shared by detectors and methods: pure functions on tensors."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from fvcore.nn import smooth_l1_loss
from torch import Tensor
from torchvision.ops import distance_box_iou_loss, generalized_box_iou_loss

from .one_pass import one_pass


def _area(sizes: Tensor) -> Tensor:
    """(...) of widths and heights (..., 2)."""
    width, height = sizes.unbind(dim=-1)  # the gradient of a product over a dimension is costly
    return width * height


def _sizes(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Widths and heights, (..., 2), of boxes, of those in the same place, and of what they share;
    the last are negative where boxes are apart.

    Those of the smallest box around both are the first two minus the last, as max(a, b) is
    a + b - min(a, b).
    """
    (low, high), (target_low, target_high) = (x.split(2, dim=-1) for x in (boxes, targets))
    shared = torch.minimum(high, target_high) - torch.maximum(low, target_low)
    return high - low, target_high - target_low, shared


def _overlap(size: Tensor, target_size: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union areas, (...), of what :func:`_sizes` gives."""
    intersection = _area(shared.clamp(min=0))
    return intersection, _area(size) + _area(target_size) - intersection


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
    intersection, union = _overlap(*_sizes(boxes, targets))
    return intersection / union.clamp(min=eps)


def elementwise_giou(boxes: Tensor, targets: Tensor, eps: float = 1e-6) -> Tensor:
    """Generalised IoU (Rezatofighi et al., CVPR 2019) of each box with that in the same place.

    Args and returns as :func:`elementwise_iou`. Unlike the losses of fvcore it takes any boxes,
    also those with x2 < x1, which an early student predicts.
    """
    size, target_size, shared = _sizes(boxes, targets)
    intersection, union = _overlap(size, target_size, shared)
    union = union.clamp(min=eps)
    enclosing = _area((size + target_size - shared).clamp(min=0)).clamp(min=eps)
    return intersection / union - (enclosing - union) / enclosing


def elementwise_diou(
    boxes: Tensor, targets: Tensor, eps: float = 1e-6, *, first: str = "iou"
) -> tuple[Tensor, Tensor]:
    """Distance-IoU of each box with that in the same place, and the IoU it is made of.

    Zheng et al., "Distance-IoU Loss", AAAI 2020, equation 7: the IoU minus the squared distance of
    the centres in units of the squared diagonal of the smallest box around both.

    Args:
        boxes, targets: (..., 4) xyxy, broadcast with each other.
        eps: smallest union and squared diagonal.
        first: "iou", or "iof": the squared distance is taken from the intersection in units of the
            area of ``boxes``.

    Returns:
        (...) and (...)
    """
    size, target_size, shared = _sizes(boxes, targets)
    intersection, union = _overlap(size, target_size, shared)
    iou = intersection / union.clamp(min=eps)
    whole = intersection / _area(size) if first == "iof" else iou
    diagonal = (size + target_size - shared).square().sum(dim=-1).clamp(min=eps)
    # Of the centres, twice as far.
    offset = (boxes[..., :2] + boxes[..., 2:]) - (targets[..., :2] + targets[..., 2:])
    return whole - offset.square().sum(dim=-1) / (4 * diagonal), iou


def sum_of(values: Tensor, selected: Tensor) -> Tensor:
    """Scalar: the sum of those of ``values`` where the bool ``selected``, of the same shape, is
    True; those of the others may be anything.

    Their number is not asked for, which would let the host wait for a GPU.
    """
    return torch.where(selected, values, 0.0).sum()


def rows_of_sum(*weights: Tensor) -> Any:
    """An index of what sums have to look at that have these weights, all at least 0.

    On the CPU that is where one of them is above 0. On a GPU it is everything: how much that is, is
    not known there, and the host would wait for it longer than the rest takes.

    Args:
        weights: (N, R) each, numbers or bool.

    Returns:
        an index: of (N, R, ...) it gives (P, ...) on the CPU, and the tensor itself on a GPU.
    """
    if weights[0].device.type != "cpu":
        return ...
    return torch.stack([weight > 0 for weight in weights]).any(dim=0).nonzero(as_tuple=True)


def focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum of the focal loss over all predictions that are not ignored.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5. Not by fvcore's
    function, which is scripted: its gradient rounds otherwise in the first steps of a process than
    in later ones, so a run that was stopped and resumed would not end as one that was not.

    Args:
        logits: (N, R, K).
        labels: (N, R) in {-1 ignored, 0..K-1, K background}.
        alpha: weight of the label's class; the others have 1 - alpha. -1 weights none.
        gamma: exponent of the modulating factor.

    Returns:
        scalar
    """
    loss, *_ = one_pass(_focal_terms, logits.float(), labels[..., None], (alpha, gamma))
    return sum_of(loss, labels >= 0)


def _focal_terms(
    logits: Tensor, labels: Tensor, options: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """With s = -x for the class of the label, s = x for the others, and p = sig(s), each costs
    p^gamma H, where H = log(1 + e^s) is its cross-entropy; the derivative of that by s is
    p^gamma (gamma (1 - p) H + p)."""
    alpha, gamma = options
    own, others = (alpha, 1 - alpha) if alpha >= 0 else (1.0, 1.0)
    classes = labels.clamp(0, logits.shape[-1] - 1)  # (P, 1), any for background
    is_object = classes == labels
    chosen = logits.gather(-1, classes)
    error = logits.scatter(-1, classes, torch.where(is_object, -chosen, chosen))
    # In place, as these are as large as all class logits.
    entropy, score = F.softplus(error), error.sigmoid_()
    power = score if gamma == 1 else score.pow(gamma)
    losses = entropy * power
    of_label = losses.gather(-1, classes) * torch.where(is_object, own, others)
    loss = losses.mul_(others).scatter_(-1, classes, of_label).sum(dim=-1)
    slope = entropy.addcmul_(entropy, score, value=-1).mul_(gamma).add_(score).mul_(power)
    of_label = slope.gather(-1, classes) * torch.where(is_object, -own, others)
    return slope.mul_(others).scatter_(-1, classes, of_label), loss


def quality_focal_loss(logits: Tensor, soft_labels: Tensor, beta: float) -> Tensor:
    """``|y - sigmoid(s)|^beta * BCE(sigmoid(s), y)``, summed over the classes.

    Quality focal loss (Li et al., "Generalized Focal Loss", NeurIPS 2020, equation 5). Both factors
    carry gradient to ``logits``.

    Args:
        logits: (..., K), s.
        soft_labels: (..., K) in [0, 1], y, without gradient; for GFL the IoU for the class of an
            object, else 0.
        beta: exponent of the modulating factor; 0 is plain binary cross-entropy.

    Returns:
        (...)
    """
    if beta == 0:
        return F.binary_cross_entropy_with_logits(
            logits, soft_labels.detach(), reduction="none"
        ).sum(dim=-1)
    return one_pass(_quality_focal_terms, logits, soft_labels, beta)[0]


def modulated_binary_cross_entropy(
    logits: Tensor, target_logits: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """:func:`quality_focal_loss` whose soft labels are the scores of a teacher.

    The class loss of BCKD (equations 5 and 6) and of CrossKD. No gradient goes to
    ``target_logits``.

    Args:
        logits: (..., K) of the student, s.
        target_logits: (..., K) of the teacher, t.
        beta: exponent of the modulating factor, above 0.

    Returns:
        (...), the loss, and (...), without gradient, max_k |sig(t_k) - sig(s_k)|
    """
    loss, largest = one_pass(_modulated_terms, logits, target_logits, beta)
    return loss, largest


def _quality_focal_terms(logits: Tensor, labels: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    slope, loss, _ = _modulated_entropy(logits, labels, beta)
    return slope, loss


def _modulated_terms(
    logits: Tensor, target_logits: Tensor, beta: float
) -> tuple[Tensor, Tensor, Tensor]:
    slope, loss, distance = _modulated_entropy(logits, target_logits.sigmoid(), beta)
    return slope, loss, distance.amax(dim=1)


def _modulated_entropy(
    logits: Tensor, labels: Tensor, beta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Slope (P, K), loss (P,) and |y - p| (P, K).

    With p = sig(s), d = p - y and the cross-entropy H, the derivative of |d|^beta H by s is
    |d|^(beta - 1) sign(d) (beta p (1 - p) H + d^2).
    """
    score = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    difference = score - labels
    distance = difference.abs()
    loss = (entropy * (distance if beta == 1 else distance.pow(beta))).sum(dim=1)
    # In place, as these are as large as all class logits.
    slope = entropy.mul_(score).mul_(score.neg_().add_(1)).mul_(beta)
    slope.addcmul_(difference, difference).mul_(difference.sign_())
    if beta != 1:
        tiny = torch.finfo(distance.dtype).tiny  # whose power is finite
        slope.mul_(distance.clamp(min=tiny).pow_(beta - 1))
    return slope, loss, distance


def binary_divergence(logits: Tensor, target_logits: Tensor) -> Tensor:
    """KL divergence of Bernoulli distributions, KL(sig(t) || sig(s)), summed over the classes.

    It is the binary cross-entropy minus the entropy of the teacher: the same gradient, and 0 where
    both agree. No gradient goes to ``target_logits``.

    Args:
        logits: (..., K) of the student, s.
        target_logits: (..., K) of the teacher, t.

    Returns:
        (...)
    """
    return one_pass(_divergence_terms, logits, target_logits, None)[0]


def _divergence_terms(logits: Tensor, target_logits: Tensor, _: None) -> tuple[Tensor, Tensor]:
    target = target_logits.sigmoid()
    divergence = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    divergence = divergence - F.binary_cross_entropy_with_logits(
        target_logits, target, reduction="none"
    )
    return logits.sigmoid() - target, divergence.sum(dim=1)


def distribution_focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with the two integers around a distance, in proportion to their nearness.

    Li et al., "Generalized Focal Loss", NeurIPS 2020, equation 6.

    Args:
        logits: (..., bins) over the distances 0, 1, ..., bins - 1.
        target: (...) distances in [0, bins - 1].

    Returns:
        (...)
    """
    log_probability = logits.log_softmax(dim=-1)
    low = target.long().clamp(max=logits.shape[-1] - 2)
    nearness = torch.stack((low + 1 - target, target - low), dim=-1)  # (..., 2)
    neighbours = log_probability.gather(-1, torch.stack((low, low + 1), dim=-1))
    return -(nearness * neighbours).sum(dim=-1)


def kl_divergence(logits: Tensor, target_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """``T^2 * KL(softmax(t / T) || softmax(s / T))``, summed over the last dimension.

    No gradient goes to ``target_logits``.

    Args:
        logits: (..., bins) of the student, s.
        target_logits: (..., bins) of the teacher, t.
        temperature: T.

    Returns:
        (...)
    """
    log_probability = (logits / temperature).log_softmax(dim=-1)
    target = (target_logits.detach() / temperature).log_softmax(dim=-1)
    divergence = F.kl_div(log_probability, target, reduction="none", log_target=True)
    return divergence.sum(dim=-1) * temperature**2


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
        "ciou": complete_iou_loss,
    }[kind]
    return loss(boxes, target_boxes).sum()


SMALLEST_HEIGHT = 1e-3
"""Pixels; below it a box's ratio of width to height counts as if it was as high."""


def complete_iou_loss(boxes: Tensor, targets: Tensor, eps: float = 1e-7) -> Tensor:
    """CIoU loss (Zheng et al., "Distance-IoU Loss", AAAI 2020, equations 8 to 11), as torchvision's
    but for predictions without height, whose gradient is NaN there.

    Args:
        boxes, targets: (P, 4).
        eps: added to divisors, as by torchvision.

    Returns:
        (P,)
    """
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(dim=1)
    target_width, target_height = (targets[:, 2:] - targets[:, :2]).unbind(dim=1)
    aspect = (width / height.clamp(min=SMALLEST_HEIGHT)).atan()
    inconsistency = 4 / math.pi**2 * ((target_width / target_height).atan() - aspect).pow(2)
    with torch.no_grad():
        intersection, union = _overlap(*_sizes(boxes, targets))
        iou = intersection / (union + eps)
        weight = inconsistency / (1 - iou + inconsistency + eps)
    return distance_box_iou_loss(boxes, targets) + weight * inconsistency
