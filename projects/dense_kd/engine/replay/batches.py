"""Batches in containers, tensors, texts and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

__all__ = ["from_plain", "to_plain"]

_KIND = "kind of structure"


def to_plain(value: Any) -> Any:
    """What can be saved of a batch as the model gets it.

    Anything that is neither a container, tensor, array, text or number nor ``Instances`` and
    ``Boxes`` becomes the name of its class.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value)
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Boxes):
        return {_KIND: "Boxes", "tensor": to_plain(value.tensor)}
    if isinstance(value, Instances):
        fields = {name: to_plain(field) for name, field in value.get_fields().items()}
        return {_KIND: "Instances", "image_size": list(value.image_size), "fields": fields}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return {_KIND: f"{type(value).__module__}.{type(value).__qualname__}"}


def from_plain(value: Any) -> Any:
    """What :func:`to_plain` was given; other objects are left out of what held them."""
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind == "Boxes":
        return Boxes(value["tensor"])
    if kind == "Instances":
        fields = {name: from_plain(field) for name, field in value["fields"].items()}
        known = {name: field for name, field in fields.items() if field is not None}
        return Instances(tuple(value["image_size"]), **known)
    if kind is not None:
        return None
    made = {key: from_plain(item) for key, item in value.items()}
    return {key: item for key, item in made.items() if item is not None or value[key] is None}
