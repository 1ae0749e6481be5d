"""The levels of a pyramid, which backbone, head and anchors have to agree on."""

from __future__ import annotations

from detectron2.modeling import Backbone


def pyramid_levels(
    backbone: Backbone, names: list[str] | None = None
) -> tuple[list[str], list[int]]:
    """Names and strides of the maps ``names`` of a backbone; of all, finest first, by default."""
    shapes = backbone.output_shape()
    if names is None:
        names = sorted(shapes, key=lambda name: shapes[name].stride)
    return list(names), [shapes[name].stride for name in names]
