"""Which predictions are responsible for which ground-truth box."""

from __future__ import annotations

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from ...lengths import zip_equal


class MaxIoUAssigner:
    """Match anchors with the box they overlap most (RetinaNet), through detectron2's Matcher.

    The defaults are detectron2's rules; the options make them mmdetection's.
    """

    def __init__(
        self,
        matcher: Matcher,
        *,
        padding_multiple: int | None = None,
        reassign_best_anchors: bool = False,
    ):
        """
        Args:
            matcher: its thresholds on IoU decide what is background, ignored and foreground, and
                its low-quality matches make the best anchors of every box foreground.
            padding_multiple: see :class:`ATSSAssigner`; 32 is mmdetection's rule.
            reassign_best_anchors: such a best anchor serves the box that it is the best of, even
                if it overlaps another more, and the last if several boxes share it: mmdetection's
                rule. In detectron2 it serves the box it overlaps most, so that a box may be left
                without an anchor.
        """
        if reassign_best_anchors and not matcher.allow_low_quality_matches:
            raise ValueError(
                "reassign_best_anchors=True with a Matcher of allow_low_quality_matches=False, in "
                "which the best anchor of a box need not be positive; make both True or both False"
            )
        self.matcher = matcher
        self.padding_multiple = padding_multiple
        self.reassign_best_anchors = reassign_best_anchors

    @torch.no_grad()
    def assign(
        self,
        priors: list[Tensor],
        ground_truth: list[Instances],
        num_classes: int,
        image_sizes: list[tuple[int, int]],
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            priors: L x (Hl*Wl*A, 4).
            ground_truth: N Instances with gt_boxes and gt_classes.
            num_classes: K, the label of background.
            image_sizes: N x (height, width) without padding.

        Returns:
            labels (N, R) in {-1 ignored, 0..K-1, K background} and matched boxes (N, R, 4).
        """
        anchors = Boxes(torch.cat(priors))  # (R, 4)
        labels, boxes = [], []
        for instances, image_size in zip_equal(ground_truth=ground_truth, image_sizes=image_sizes):
            keep = not_in_padding(anchors.tensor, image_size, self.padding_multiple)  # (R,)
            # An overlap of 0 is below all others: an anchor in the padding is the best of no box.
            overlaps = pairwise_iou(instances.gt_boxes, anchors).masked_fill_(~keep, 0)  # (M, R)
            matched, match = self._match(overlaps)  # (R,) both
            if len(instances) == 0:
                label = torch.full_like(matched, num_classes)
                box = torch.zeros_like(anchors.tensor)
            else:
                label = instances.gt_classes[matched]
                label[match == 0] = num_classes
                label[match == -1] = -1
                box = instances.gt_boxes.tensor[matched]
            labels.append(label.masked_fill(~keep, -1))
            boxes.append(box)
        return torch.stack(labels), torch.stack(boxes)

    def _match(self, overlaps: Tensor) -> tuple[Tensor, Tensor]:
        """(R,) index of a box, and (R,) whether it is 1 foreground, 0 background, -1 ignored."""
        matched, match = self.matcher(overlaps)
        if self.reassign_best_anchors and len(overlaps) > 0:
            is_best = overlaps == overlaps.amax(dim=1, keepdim=True)  # (M, R)
            found, from_last = is_best.flip(0).byte().max(dim=0)  # (R,) both; the first of equals
            matched = torch.where(found > 0, len(overlaps) - 1 - from_last, matched)
        return matched, match


class FCOSAssigner:
    """Match points with the smallest box that holds them and fits their level's size range.

    Level l serves boxes whose largest distance from the point to a side is within 4 to 8 strides;
    the first level has no lower and the last no upper bound.
    """

    RULES = ("detectron2", "mmdet")

    def __init__(self, *, center_sampling_radius: float | None = 1.5, rule: str = "detectron2"):
        """
        Args:
            center_sampling_radius: a point must also be within so many strides of the box's
                centre, on each axis; None is the whole box.
            rule: "detectron2" excludes both ends of a size range and compares areas in steps of
                8 pixels (it ranks by ``1e8 - area`` in float32); "mmdet" includes both ends and
                compares exact areas. They differ only where these decide.
        """
        if rule not in self.RULES:
            raise ValueError(f"rule={rule!r}: expected one of {self.RULES}")
        self.center_sampling_radius = center_sampling_radius
        self.rule = rule

    @torch.no_grad()
    def assign(
        self, priors: list[Tensor], ground_truth: list[Instances], num_classes: int
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`MaxIoUAssigner.assign`; priors are squares of their level's stride."""
        ranges = self._size_ranges(priors)  # (R, 2)
        points = torch.cat(priors)  # (R, 4)
        labels, boxes = [], []
        for instances in ground_truth:
            if len(instances) == 0:
                labels.append(points.new_full((len(points),), num_classes, dtype=torch.int64))
                boxes.append(torch.zeros_like(points))
                continue
            rank = self._rank(points, ranges, instances.gt_boxes.tensor)  # (M, R)
            best, matched = rank.max(dim=0)
            label = instances.gt_classes[matched]
            label[best <= 0] = num_classes
            labels.append(label)
            boxes.append(instances.gt_boxes.tensor[matched])
        return torch.stack(labels), torch.stack(boxes)

    def _size_ranges(self, priors: list[Tensor]) -> Tensor:
        ranges = []
        for level, anchors in enumerate(priors):
            size = anchors[:, 2] - anchors[:, 0]
            low = size * 4 if level > 0 else torch.zeros_like(size)
            high = size * 8 if level + 1 < len(priors) else torch.full_like(size, float("inf"))
            ranges.append(torch.stack((low, high), dim=1))
        return torch.cat(ranges)

    def _rank(self, points: Tensor, ranges: Tensor, gt_boxes: Tensor) -> Tensor:
        """(M, R): positive where a point may serve a box, larger for smaller boxes."""
        centers = (points[:, :2] + points[:, 2:]) / 2  # (R, 2)
        sizes = points[:, 2] - points[:, 0]  # (R,)
        low_side = centers[None] - gt_boxes[:, None, :2]  # (M, R, 2)
        high_side = gt_boxes[:, None, 2:] - centers[None]  # (M, R, 2)
        match = (low_side > 0).all(dim=2) & (high_side > 0).all(dim=2)
        largest = torch.maximum(low_side, high_side).amax(dim=2)  # (M, R)
        if self.rule == "detectron2":
            match &= (largest > ranges[:, 0]) & (largest < ranges[:, 1])
        else:
            match &= (largest >= ranges[:, 0]) & (largest <= ranges[:, 1])
        if self.center_sampling_radius is not None:
            gt_centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
            offset = (centers[None] - gt_centers[:, None]).abs().amax(dim=2)  # (M, R)
            match &= offset < self.center_sampling_radius * sizes
        areas = (gt_boxes[:, 2:] - gt_boxes[:, :2]).prod(dim=1)  # (M,)
        if self.rule == "detectron2":
            return match * (1e8 - areas[:, None])
        return match / areas[:, None].clamp(min=torch.finfo(areas.dtype).tiny)


def not_in_padding(
    anchors: Tensor, image_size: tuple[int, int], padding_multiple: int | None
) -> Tensor:
    """Which anchors have their centre on the image's own size rounded up to a multiple.

    Args:
        anchors: (R, 4).
        image_size: (height, width) without padding.
        padding_multiple: pixels; None keeps all anchors.

    Returns:
        (R,) bool
    """
    if padding_multiple is None:
        return anchors.new_ones(len(anchors), dtype=torch.bool)
    height, width = (-(-x // padding_multiple) * padding_multiple for x in image_size)
    centers = box_centers(anchors) + 0.01  # the corners of an anchor on the border are rounded
    return (centers[:, 0] < width) & (centers[:, 1] < height)


def on_image(
    levels: list[Tensor], image_size: tuple[int, int], padding_multiple: int | None
) -> Tensor:
    """Which locations have a cell that begins on the image, see :func:`not_in_padding`.

    The point of a cell (FCOS's is its middle) may be beyond the image while its cell is not: the
    coarse maps of an image that fills its batch have such cells at the border.

    Args:
        levels: priors, L x (Hl*Wl*A, 4), the first of each at the map's corner.
        image_size: (height, width) without padding.
        padding_multiple: pixels; None keeps all locations.

    Returns:
        (R,) bool
    """
    corners = [box_centers(priors) - box_centers(priors[:1]) for priors in levels]
    return not_in_padding(torch.cat(corners).repeat(1, 2), image_size, padding_multiple)


def box_centers(boxes: Tensor) -> Tensor:
    """(..., 2) of (..., 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2
