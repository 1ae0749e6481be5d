"""Copies of tiny models: to build one takes longer than a training step, to copy one does not."""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class _WithoutTensors(pickle.Pickler):
    """Keeps tensors beside the pickle, and in it the place of each in ``tensors``."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.tensors: list[Tensor] = []
        self.places: dict[int, int] = {}

    def persistent_id(self, value: object) -> int | None:
        if not isinstance(value, Tensor):
            return None
        if id(value) not in self.places:
            self.places[id(value)] = len(self.tensors)
            self.tensors.append(value)
        return self.places[id(value)]


class _WithCopies(pickle.Unpickler):
    """Puts a copy of each tensor in its places."""

    def __init__(self, file: io.BytesIO, tensors: list[Tensor]):
        super().__init__(file)
        self.copies = [_copy(tensor) for tensor in tensors]

    def persistent_load(self, place: int) -> Tensor:
        return self.copies[place]


def _copy(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copy, tensor.requires_grad)
    return copy.requires_grad_(tensor.requires_grad)


def built_once(build: Callable[..., Model]) -> Callable[..., Model]:
    """Give a new copy of what ``build`` builds once for the same arguments.

    What a test does to its copy stays in it. (``copy.deepcopy`` of a model takes as long as
    building it.) Neither building nor copying draws from the global random numbers, so that these
    do not depend on which test was first. Arguments that cannot be pickled build anew.
    """
    built: dict[bytes, tuple[bytes, list[Tensor]]] = {}

    @functools.wraps(build)
    def copy_of(*args: object, **options: object) -> Model:
        try:
            arguments = pickle.dumps((args, options))
        except (AttributeError, TypeError, pickle.PicklingError):  # a function in a function
            with torch.random.fork_rng(devices=[]):
                return build(*args, **options)
        if arguments not in built:
            with torch.random.fork_rng(devices=[]):
                model = build(*args, **options)
            pickler = _WithoutTensors(file := io.BytesIO())
            pickler.dump(model)
            built[arguments] = file.getvalue(), pickler.tensors
        pickled, tensors = built[arguments]
        return _WithCopies(io.BytesIO(pickled), tensors).load()

    return copy_of
