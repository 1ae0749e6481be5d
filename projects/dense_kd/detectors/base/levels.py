"""The levels of a pyramid, on which backbone, head and anchors have to agree."""

from __future__ import annotations

import torch
from detectron2.modeling import Backbone
from torch import nn

from .heads import TowerHead


def pyramid_levels(
    backbone: Backbone, names: list[str] | None = None
) -> tuple[list[str], list[int]]:
    """Names and strides of the maps ``names`` of a backbone; of all, finest first, by default.

    Raises:
        ValueError: ``names`` are not maps of the backbone, or a coarser one is before a finer one.
    """
    shapes = backbone.output_shape()
    if names is None:
        names = sorted(shapes, key=lambda name: shapes[name].stride)
    unknown = [name for name in names if name not in shapes]
    if unknown or not names:
        raise ValueError(
            f"head_in_features={list(names)}: expected one or more of the backbone's maps, "
            f"{list(shapes)}"
        )
    strides = [shapes[name].stride for name in names]
    if strides != sorted(strides):
        raise ValueError(
            f"head_in_features={list(names)} have the strides {strides}; expected the finest first"
        )
    return list(names), strides


def check_head(head: TowerHead, backbone: Backbone, names: list[str]) -> None:
    """Check that a head is for the maps ``names`` of a backbone.

    Raises:
        ValueError: it is for another number of levels, or for maps of another width.
    """
    if len(names) != head.num_levels:
        raise ValueError(
            f"the head was built for {head.num_levels} levels and gets {names}; "
            "make input_shape of the head and head_in_features equally long"
        )
    shapes = backbone.output_shape()
    widths = {name: shapes[name].channels for name in names}
    expected = head.tower_channels[0]
    if any(width not in (None, expected) for width in widths.values()):
        raise ValueError(
            f"the head was built for maps of {expected} channels and gets {widths}; give its "
            "input_shape the channels of the backbone's maps"
        )


def check_anchors(anchor_generator: nn.Module, strides: list[int], num_anchors: int) -> None:
    """Check that an anchor generator is for this pyramid and this head, by what it gives.

    Args:
        anchor_generator: gives L Boxes for L maps, ordered by row, column, anchor.
        strides: of the L maps.
        num_anchors: A.

    Raises:
        ValueError: it has other levels, other strides or other anchors per location.
    """
    # Two cells by side on the coarsest level. A generator of more levels than the pyramid takes the
    # first of its own, which would go unnoticed but for what it says.
    sides = [2 * max(strides) // stride for stride in strides]
    maps = [torch.zeros(1, 1, side, side) for side in sides]
    anchors = [boxes.tensor for boxes in anchor_generator(maps)]
    counts = [len(boxes) / side**2 for boxes, side in zip(anchors, sides)]
    spacings = list(getattr(anchor_generator, "strides", strides))
    if len(spacings) == len(anchors) == len(strides) and counts == [num_anchors] * len(strides):
        if not anchors[0].is_meta:
            spacings = [(boxes[num_anchors, 0] - boxes[0, 0]).item() for boxes in anchors]
        if spacings == strides:
            return
    raise ValueError(
        f"anchor_generator has levels of the strides {spacings} and gives {len(anchors)} levels "
        f"with {counts} anchors per location; expected the levels of head_in_features, whose "
        f"strides are {strides}, with {num_anchors} anchors per location, which head.num_anchors is"
    )
