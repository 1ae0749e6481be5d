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
    width, height = _ends(image_size, padding_multiple)
    centers = _rounded(box_centers(anchors))
    return (centers[:, 0] < width) & (centers[:, 1] < height)


def on_images(
    levels: list[Tensor], image_sizes: list[tuple[int, int]], padding_multiple: int | None
) -> Tensor:
    """Which locations have a cell that begins on the image, see :func:`not_in_padding`.

    The point of a cell (FCOS's is its middle) may be beyond the image while its cell is not: the
    coarse maps of an image that fills its batch have such cells at the border.

    Args:
        levels: priors, L x (Hl*Wl*A, 4), the first of each at the map's corner.
        image_sizes: N x (height, width) without padding.
        padding_multiple: pixels; None keeps all locations.

    Returns:
        (N, R) bool
    """
    sizes = [len(priors) for priors in levels]
    if padding_multiple is None:
        return levels[0].new_ones(len(image_sizes), sum(sizes), dtype=torch.bool)
    centers = box_centers(torch.cat(levels))
    corners = torch.cat([level[:1].expand_as(level) for level in centers.split(sizes)])
    ends = torch.tensor([_ends(size, padding_multiple) for size in image_sizes])  # (N, 2)
    ends = ends.to(centers.device, non_blocking=True)
    return (_rounded(centers - corners) < ends[:, None]).all(dim=-1)


def num_on_image(
    sizes: list[tuple[int, int]],
    strides: list[int],
    image_size: tuple[int, int],
    padding_multiple: int | None,
) -> int:
    """How many cells of maps are True in :func:`on_images`, without looking at it.

    Args:
        sizes: L x (Hl, Wl).
        strides: L, in pixels.
        image_size: (height, width) without padding.
        padding_multiple: see :func:`on_images`.
    """
    count = 0
    for size, stride in zip(sizes, strides):
        cells = list(size)
        if padding_multiple is not None:
            width, height = _ends(image_size, padding_multiple)
            cells = [min(n, -(-end // stride)) for n, end in zip(size, (height, width))]
        count += cells[0] * cells[1]
    return count


def _rounded(centers: Tensor) -> Tensor:
    return centers + 0.01  # the corners of an anchor on the border are rounded


def _ends(image_size: tuple[int, int], padding_multiple: int) -> tuple[int, int]:
    """Width and height, rounded up to the multiple, of an image of (height, width)."""
    height, width = (-(-side // padding_multiple) * padding_multiple for side in image_size)
    return width, height


def box_centers(boxes: Tensor) -> Tensor:
    """(..., 2) of (..., 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2
