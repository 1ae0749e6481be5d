"""FCOS's assigner: points in boxes, by the size range of their level."""

from __future__ import annotations

import torch
from detectron2.structures import Instances
from torch import Tensor


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
        """As ``MaxIoUAssigner.assign``; priors are squares of their level's stride."""
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
