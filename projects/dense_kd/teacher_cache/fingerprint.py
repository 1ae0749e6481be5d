"""What the maps of a detector depend on, besides the image."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..detectors import DenseDetector

_PLAIN = (bool, int, float, str, type(None))


class Fingerprint:
    """The digest of a detector's weights and structure, which is made again if these change.

    It is of the parameters and buffers of backbone and head, of the settings of their modules, of
    the names of the maps between the two, and of how images are normalised. To make it is to read
    all weights once; whether one was changed in place is told by torch's counters.
    """

    def __init__(self) -> None:
        self._digest = ""
        self._tensors: list[Tensor] = []
        self._seen: tuple[Any, ...] = ()

    def of(self, model: DenseDetector) -> str:
        """The digest, in hexadecimal digits.

        Args:
            model: always the same.
        """
        if not self._digest or self._state(model) != self._seen:
            self._tensors = [tensor for _, tensor in _tensors(model)]
            self._digest = _digest(model)
            self._seen = self._state(model)
        return self._digest

    def _state(self, model: DenseDetector) -> tuple[Any, ...]:
        return model.device, sum(tensor._version for tensor in self._tensors)

    def __reduce__(self) -> tuple[Any, ...]:  # a copy belongs to another model
        return type(self), ()


def _digest(model: DenseDetector) -> str:
    digest = hashlib.sha256()
    settings = (model.image_input, str(model.pixel_mean.dtype), model.head_in_features)
    digest.update(repr(settings).encode())
    for part in (model.backbone, model.head):
        for name, module in part.named_modules():
            digest.update(repr((name, type(module).__qualname__, _settings(module))).encode())
    for name, tensor in _tensors(model):
        digest.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def bytes_of(tensor: Tensor) -> memoryview:
    """The numbers of a tensor in the order of its indices; a GPU is waited for."""
    numbers: Any = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return memoryview(numbers)


def _tensors(model: DenseDetector) -> Iterator[tuple[str, Tensor]]:
    for part in (model.backbone, model.head):
        yield from part.named_parameters()
        yield from part.named_buffers()


def _settings(module: nn.Module) -> list[tuple[str, Any]]:
    """Attributes that are numbers, texts and the like, or names of functions."""
    found = []
    for name, value in sorted(vars(module).items()):
        if name == "training":
            continue
        if inspect.isroutine(value):
            found.append((name, getattr(value, "__qualname__", "")))
        elif _is_plain(value):
            found.append((name, value))
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)
