"""Codes of boxes as distances from a point to the four sides."""

from __future__ import annotations

import torch
from torch import Tensor

ACTIVATIONS = ("relu", "exp", "identity")


class DistanceCoder:
    """Distances (left, top, right, bottom) from the centre of a prior to the sides of a box.

    The code of FCOS (Tian et al., ICCV 2019, section 3.1). ``Box2BoxTransformLinear`` of
    detectron2 main is ``DistanceCoder()``; 0.5 has no such class.
    """

    def __init__(self, *, activation: str = "relu", normalize_by_size: bool = True):
        """
        Args:
            activation: what makes a head's output a distance: "relu" (detectron2, and mmdet's
                ``norm_on_bbox``), "exp" (the paper), or "identity".
            normalize_by_size: distances are in units of the prior's size, which is the stride;
                False is pixels.
        """
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r}: expected one of {ACTIVATIONS}")
        self.activation = activation
        self.normalize_by_size = normalize_by_size

    def get_deltas(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """Distances of ``boxes`` from the centres of ``priors``; no activation is inverted.

        Args:
            priors, boxes: (..., 4) xyxy, broadcast with each other.

        Returns:
            (..., 4), negative on sides that do not enclose the centre.
        """
        centers = (priors[..., :2] + priors[..., 2:]) / 2
        distances = torch.cat((centers - boxes[..., :2], boxes[..., 2:] - centers), dim=-1)
        return distances / _sizes(priors) if self.normalize_by_size else distances

    def apply_deltas(self, deltas: Tensor, priors: Tensor) -> Tensor:
        """Boxes (..., 4) from head outputs ``deltas`` (..., 4) at ``priors`` (..., 4)."""
        if self.activation == "relu":
            deltas = deltas.relu()
        elif self.activation == "exp":
            deltas = deltas.exp()
        if self.normalize_by_size:
            deltas = deltas * _sizes(priors)
        centers = (priors[..., :2] + priors[..., 2:]) / 2
        return torch.cat((centers - deltas[..., :2], centers + deltas[..., 2:]), dim=-1)


def _sizes(priors: Tensor) -> Tensor:
    sizes = priors[..., 2:] - priors[..., :2]
    return torch.cat((sizes, sizes), dim=-1)
