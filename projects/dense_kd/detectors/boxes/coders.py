"""Codes of boxes: deltas of centre and size, and distances from a point to the four sides."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor

from ...options import check_flags, check_positive

ACTIVATIONS = ("relu", "exp", "identity")
LARGEST = 1e6
"""The largest coordinate of a box, in pixels, and the largest value of a code: far beyond those of
any image, and small enough for float32 to hold the squares of areas, which gradients have."""


def bounded(values: Tensor, high: float = LARGEST) -> Tensor:
    """``values``, those below -:data:`LARGEST` or above ``high`` at that bound, without gradient.

    What is not finite stays as it is, to be noticed.
    """
    # Has the gradient of a clamp in one operation. NaN stays NaN.
    within = F.hardtanh(values, -LARGEST, high)
    return torch.where(values.isinf(), values.detach(), within)


class DeltaCoder(Box2BoxTransform):
    """detectron2's deltas of R-CNN, with predicted sizes bounded from both sides.

    The logarithms dw and dh of a box's size in units of its anchor's are clamped to
    ``+-scale_clamp`` when a box is decoded, as mmdetection does; ``Box2BoxTransform`` clamps them
    from above only, so that a strongly negative one gives a box without area.
    """

    def __init__(
        self,
        weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
        scale_clamp: float = math.log(1000 / 16),
    ):
        """
        Args:
            weights: of (dx, dy, dw, dh): the reciprocals of mmdetection's ``target_stds``.
            scale_clamp: largest absolute logarithm of a size in units of the anchor's.
        """
        super().__init__(weights, scale_clamp)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Boxes (P, 4) from head outputs ``deltas`` (P, 4) at anchors ``boxes`` (P, 4)."""
        dx, dy, dw, dh = deltas.float().unbind(dim=1)
        dw = dw.clamp(min=-self.scale_clamp * self.weights[2])
        dh = dh.clamp(min=-self.scale_clamp * self.weights[3])
        return super().apply_deltas(torch.stack((dx, dy, dw, dh), dim=1), boxes)


class DistanceCoder:
    """Distances (left, top, right, bottom) from the centre of a prior to the sides of a box.

    The code of FCOS (Tian et al., ICCV 2019, section 3.1). ``Box2BoxTransformLinear`` of
    detectron2 main is ``DistanceCoder()``; 0.5 has no such class.
    """

    def __init__(
        self,
        *,
        activation: str = "relu",
        normalize_by_size: bool = True,
        prior_scale: float = 1.0,
    ):
        """
        Args:
            activation: what makes a head's output a distance: "relu" (detectron2, and mmdet's
                ``norm_on_bbox``), "exp" (the paper; of at most :data:`LARGEST`), or "identity".
            normalize_by_size: distances are in strides, that is in units of the prior's size
                divided by ``prior_scale``; False is pixels.
            prior_scale: size of a prior in strides; 1 for points, 8 for the anchors of GFL.
        """
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r}: expected one of {ACTIVATIONS}")
        check_flags(normalize_by_size=normalize_by_size)
        check_positive(prior_scale=prior_scale)
        self.activation = activation
        self.normalize_by_size = normalize_by_size
        self.prior_scale = prior_scale

    def get_deltas(self, priors: Tensor, boxes: Tensor) -> Tensor:
        """Distances of ``boxes`` from the centres of ``priors``; no activation is inverted.

        Args:
            priors, boxes: (..., 4) xyxy, broadcast with each other.

        Returns:
            (..., 4), negative on sides that do not enclose the centre.
        """
        centers = (priors[..., :2] + priors[..., 2:]) / 2
        distances = torch.cat((centers - boxes[..., :2], boxes[..., 2:] - centers), dim=-1)
        if not self.normalize_by_size:
            return distances
        units = self._units(priors)
        return distances / torch.cat((units, units), dim=-1)

    def apply_deltas(self, deltas: Tensor, priors: Tensor) -> Tensor:
        """Boxes (..., 4) from head outputs ``deltas`` (..., 4) at ``priors`` (..., 4)."""
        if self.activation == "relu":
            deltas = deltas.relu()
        elif self.activation == "exp":
            deltas = bounded(deltas, high=math.log(LARGEST)).exp()
        centers = (priors[..., :2] + priors[..., 2:]) / 2
        if not self.normalize_by_size:
            return torch.cat((centers - deltas[..., :2], centers + deltas[..., 2:]), dim=-1)
        units = self._units(priors)
        # The same with signs, in fewer operations and still fewer of the gradient.
        return torch.cat((centers, centers), dim=-1) + deltas * torch.cat((-units, units), dim=-1)

    def _units(self, priors: Tensor) -> Tensor:
        """(..., 2): the pixels that a distance of 1 is, horizontally and vertically."""
        return (priors[..., 2:] - priors[..., :2]) / self.prior_scale


@torch.no_grad()
def centerness(priors: Tensor, boxes: Tensor, inside: Tensor) -> Tensor:
    """How central the centre of a prior is in a box: 1 in the middle, 0 on a side.

    Tian et al., "FCOS", ICCV 2019, equation 3; ATSS has the same.

    Args:
        priors, boxes: (..., 4), broadcast with each other.
        inside: (...) bool, where the centre is in the box; elsewhere the result is 0.

    Returns:
        (...) in [0, 1].
    """
    distances = DistanceCoder(normalize_by_size=False).get_deltas(priors, boxes)  # (..., 4)
    horizontal, vertical = distances[..., 0::2], distances[..., 1::2]  # (..., 2)
    ratio = (horizontal.amin(-1) / horizontal.amax(-1)) * (vertical.amin(-1) / vertical.amax(-1))
    return torch.where(inside, ratio, torch.zeros_like(ratio)).sqrt()
