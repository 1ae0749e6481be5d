"""What torchvision's detectors have and detectron2 lacks: their anchors, and their batch norm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from torch import Tensor

from ...lengths import zip_equal


class TorchvisionAnchorGenerator(DefaultAnchorGenerator):
    """detectron2's generator with torchvision's rounding and spacing.

    ``torchvision.models.detection.anchor_utils.AnchorGenerator`` centres the first anchor on the
    corner of the image, rounds the corners of a cell's anchors to whole pixels, and spaces the
    anchors of a level by side of the image // side of the map. On P6 and P7, whose sides are
    rounded up, that is less than 64 and 128 unless the image is a multiple of 128. The order of a
    location's anchors is detectron2's (size, ratio); torchvision's own is (ratio, size).
    """

    def __init__(
        self,
        *,
        sizes: list[list[float]],
        aspect_ratios: list[float],
        strides: list[int],
    ):
        """
        Args:
            sizes: of each level's anchors, square roots of their areas.
            aspect_ratios: height / width.
            strides: nominal ones, of which the first gives the side of the image; the backbone
                pads to a multiple of it.
        """
        super().__init__(sizes=sizes, aspect_ratios=aspect_ratios, strides=strides, offset=0.0)

    def generate_cell_anchors(self, sizes: list[float], aspect_ratios: list[float]) -> Tensor:
        """Anchors (A, 4) around the origin."""
        return super().generate_cell_anchors(sizes, aspect_ratios).round()

    def _grid_anchors(self, grid_sizes: list[tuple[int, int]]) -> list[Tensor]:
        height, width = (self.strides[0] * side for side in grid_sizes[0])
        anchors = []
        for (rows, columns), cell in zip_equal(
            maps=grid_sizes, levels_of_anchors=self.cell_anchors
        ):
            y = torch.arange(rows, device=cell.device) * (height // rows)
            x = torch.arange(columns, device=cell.device) * (width // columns)
            y, x = torch.meshgrid(y, x, indexing="ij")
            corners = torch.stack((x, y, x, y), dim=-1).view(-1, 1, 4)  # (Hl*Wl, 1, 4)
            anchors.append((corners + cell).view(-1, 4))  # (Hl*Wl*A, 4)
        return anchors


def frozen_batch_norm(eps: float) -> Callable[[int], FrozenBatchNorm2d]:
    """detectron2's "FrozenBN" with another ``eps`` than 1e-5, as ``norm`` of its ResNet."""
    return partial(FrozenBatchNorm2d, eps=eps)
