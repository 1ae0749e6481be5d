"""ATSS and DDOD: an anchor's match depends on how well the anchors near a box fit it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from ...lengths import zip_equal
from .locations import box_centers, not_in_padding


class AdaptiveAssigner:
    """What ATSS and DDOD share; they differ in how well an anchor fits a box.

    The candidates of a box are the ``topk`` anchors of each level whose centres are nearest to its
    own. Positive are those that fit it at least as well as the mean plus the (unbiased) standard
    deviation of all candidates and whose centre is in the box; an anchor that several boxes claim
    goes to the one that it fits best.
    """

    MARGIN = 0.01
    """Pixels that a centre must be inside a box, as in the released code and mmdetection."""

    def __init__(self, *, topk: int = 9, padding_multiple: int | None = 32):
        """
        Args:
            topk: candidates per box and level.
            padding_multiple: anchors with a centre beyond the image's own size rounded up to a
                multiple of this are ignored, and candidates of no box. The sizes of other images
                in the batch then do not matter. 32 is mmdetection's rule; None keeps all anchors.
        """
        self.topk = topk
        self.padding_multiple = padding_multiple

    def _assign(
        self,
        priors: list[Tensor],
        ground_truth: list[Instances],
        num_classes: int,
        image_sizes: list[tuple[int, int]],
        fit: Callable[[int, Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Labels (N, R) and matched boxes (N, R, 4).

        Args:
            priors, ground_truth, num_classes, image_sizes: see
                :meth:`.max_iou.MaxIoUAssigner.assign`.
            fit: maps the index of an image and (R,) bool, V of which are True, to (M, V): how well
                these anchors fit its M boxes, at least 0.
        """
        labels, boxes = [], []
        for image, (instances, image_size) in enumerate(
            zip_equal(ground_truth=ground_truth, image_sizes=image_sizes)
        ):
            valid = [not_in_padding(a, image_size, self.padding_multiple) for a in priors]
            keep = torch.cat(valid)  # (R,)
            label = torch.full_like(keep, -1, dtype=torch.int64)
            box = priors[0].new_zeros(len(keep), 4)
            label[keep] = num_classes
            if len(instances) > 0:
                gt_boxes = instances.gt_boxes.tensor
                levels = [a[v] for a, v in zip(priors, valid)]
                matched = self._match(levels, gt_boxes, fit(image, keep))
                gt_classes = instances.gt_classes[matched]
                label[keep] = torch.where(matched < 0, num_classes, gt_classes)
                box[keep] = gt_boxes[matched]
            labels.append(label)
            boxes.append(box)
        return torch.stack(labels), torch.stack(boxes)

    def _match(self, levels: list[Tensor], gt_boxes: Tensor, fits: Tensor) -> Tensor:
        """(V,): index of the box of each anchor, or -1; ``fits`` is (M, V)."""
        index = self._candidates(levels, gt_boxes, fits)  # (M, candidates)
        near = fits.gather(1, index)
        centers = box_centers(torch.cat(levels))[index]  # (M, candidates, 2)
        box = gt_boxes[:, None]  # (M, 1, 4)
        sides = torch.cat((centers - box[..., :2], box[..., 2:] - centers), dim=2)
        positive = self._fits_well(near) & (sides.amin(dim=2) > self.MARGIN)
        claims = torch.full_like(fits, -1.0)
        claims.scatter_(1, index, torch.where(positive, near, torch.full_like(near, -1.0)))
        best, matched = claims.max(dim=0)
        return torch.where(best >= 0, matched, torch.full_like(matched, -1))

    def _candidates(self, levels: list[Tensor], gt_boxes: Tensor, fits: Tensor) -> Tensor:
        """(M, candidates): indices of the nearest anchors of each level."""
        return nearest_anchors(levels, gt_boxes, self.topk)

    def _fits_well(self, near: Tensor) -> Tensor:
        """(M, candidates) bool, of how well the candidates fit their box."""
        return near >= usual_fit(near)


class ATSSAssigner(AdaptiveAssigner):
    """Match anchors that are near a box and overlap it more than is usual for those near it.

    Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive
    Training Sample Selection", CVPR 2020, algorithm 1: an anchor fits a box as well as its IoU
    says.
    """

    @torch.no_grad()
    def assign(
        self,
        priors: list[Tensor],
        ground_truth: list[Instances],
        num_classes: int,
        image_sizes: list[tuple[int, int]],
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`.max_iou.MaxIoUAssigner.assign`."""
        anchors = torch.cat(priors)  # (R, 4)

        def overlaps(image: int, keep: Tensor) -> Tensor:
            return pairwise_iou(ground_truth[image].gt_boxes, Boxes(anchors[keep]))

        return self._assign(priors, ground_truth, num_classes, image_sizes, overlaps)


class DDODAssigner(AdaptiveAssigner):
    """Match anchors whose predictions fit a box better than is usual for those near it.

    Chen et al., "Disentangle Your Dense Object Detector", ACM MM 2021. With the score s of the
    box's class and the IoU u of the predicted box with it, an anchor fits a box by

        s^(1 - alpha) * u^alpha

    Two assigners, of different ``alpha``, serve the class loss and the box losses.
    """

    RULES = ("mmdet", "pgd")

    def __init__(
        self,
        *,
        alpha: float,
        topk: int = 9,
        padding_multiple: int | None = 32,
        cost_rule: str = "mmdet",
    ):
        """
        Args:
            alpha: in [0, 1]; 0 looks at the class score alone, 1 at the box alone.
            topk: candidates per box, and level with ``cost_rule="mmdet"``.
            padding_multiple: see :class:`AdaptiveAssigner`.
            cost_rule: "mmdet" is that of ATSS, see :class:`AdaptiveAssigner`; with "pgd" (the
                baseline of Yang et al., "Prediction-Guided Distillation", ECCV 2022) the
                candidates are the ``topk`` anchors of all levels that fit the box best, and
                positive are those of them that fit it at all and whose centre is in the box.
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha={alpha}: expected a weight of the box in [0, 1]")
        if cost_rule not in self.RULES:
            raise ValueError(f"cost_rule={cost_rule!r}: expected one of {self.RULES}")
        super().__init__(topk=topk, padding_multiple=padding_multiple)
        self.alpha = alpha
        self.cost_rule = cost_rule

    @torch.no_grad()
    def assign(
        self,
        priors: list[Tensor],
        ground_truth: list[Instances],
        num_classes: int,
        image_sizes: list[tuple[int, int]],
        logits: Tensor,
        boxes: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`ATSSAssigner.assign`, by predictions.

        Args:
            priors, ground_truth, num_classes, image_sizes: see
                :meth:`.max_iou.MaxIoUAssigner.assign`.
            logits: (N, R, K) class logits, of any detector with the same priors and classes.
            boxes: (N, R, 4) that it predicts.
        """
        expected = (len(ground_truth), sum(len(anchors) for anchors in priors), num_classes)
        if logits.shape != expected or boxes.shape != (*expected[:2], 4):
            raise ValueError(
                f"logits {tuple(logits.shape)} and boxes {tuple(boxes.shape)}: expected "
                f"(N, R, K) = {expected} and (N, R, 4); take the predictions of a detector with "
                "the same anchors and classes"
            )

        def fit(image: int, keep: Tensor) -> Tensor:
            truth = ground_truth[image]
            # Only the classes of the boxes: (V, M), never (V, M, K).
            scores = logits[image, keep][:, truth.gt_classes].sigmoid().t()
            overlaps = pairwise_iou(truth.gt_boxes, Boxes(boxes[image, keep]))  # (M, V)
            return scores.pow(1 - self.alpha) * overlaps.pow(self.alpha)

        return self._assign(priors, ground_truth, num_classes, image_sizes, fit)

    def _candidates(self, levels: list[Tensor], gt_boxes: Tensor, fits: Tensor) -> Tensor:
        if self.cost_rule == "pgd":
            return fits.topk(min(self.topk, fits.shape[1]), dim=1).indices
        return super()._candidates(levels, gt_boxes, fits)

    def _fits_well(self, near: Tensor) -> Tensor:
        if self.cost_rule == "pgd":
            return near > 0
        return super()._fits_well(near)


def nearest_anchors(
    levels: list[Tensor], gt_boxes: Tensor, topk: int, valid: Tensor | None = None
) -> Tensor:
    """The candidates of boxes: on each level the anchors whose centres are nearest to theirs.

    Args:
        levels: L x (Rl, 4), of R anchors.
        gt_boxes: (..., M, 4).
        topk: anchors per box and level.
        valid: (..., R) bool, anchors that come before all others; None is all.

    Returns:
        (..., M, candidates): indices into the anchors of all levels.
    """
    offsets = box_centers(torch.cat(levels)) - box_centers(gt_boxes)[..., None, :]
    distances = offsets.pow(2).sum(dim=-1).sqrt()  # (..., M, R)
    if valid is not None:
        distances = distances.masked_fill(~valid[..., None, :], torch.inf)
    candidates, start = [], 0
    for level in distances.split([len(anchors) for anchors in levels], dim=-1):
        count = min(topk, level.shape[-1])
        candidates.append(level.topk(count, dim=-1, largest=False).indices + start)
        start += level.shape[-1]
    return torch.cat(candidates, dim=-1)


def usual_fit(near: Tensor, valid: Tensor | None = None) -> Tensor:
    """(..., 1): mean plus (unbiased) standard deviation of how well candidates fit.

    Args:
        near: (..., candidates).
        valid: of the same shape, bool: those that count; None is all. Of fewer than two the
            deviation is NaN.
    """
    if valid is None:
        return near.mean(dim=-1, keepdim=True) + near.std(dim=-1, keepdim=True)
    count = valid.sum(dim=-1, keepdim=True)
    mean = (near * valid).sum(dim=-1, keepdim=True) / count
    squares = ((near - mean) * valid).square().sum(dim=-1, keepdim=True)
    return mean + (squares / (count - 1)).sqrt()
