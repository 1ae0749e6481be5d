"""Where anchors and points are: their centres, and whether these are on the image."""

from __future__ import annotations

import torch
from torch import Tensor


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
