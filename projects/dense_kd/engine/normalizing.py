"""``train.normalize=iteration``: the counts of all batches, before their losses are divided."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from .. import compat
from ..distiller import Distiller
from ..normalizers import IterationNormalizers
from ..random_state import kept_random_state
from .buffers import KeptBuffers

__all__ = ["RestoredBuffers", "measure", "warn_of_methods"]

logger = logging.getLogger(__name__)


@torch.no_grad()
def measure(
    normalizers: IterationNormalizers, model: nn.Module, batches: Iterable[list[dict[str, Any]]]
) -> None:
    """Let ``normalizers`` see the counts of batches; the model, the random generators and the
    trainer's storage are as before.

    Args:
        normalizers: of this iteration.
        model: in training mode.
        batches: all of the iteration.
    """
    storage = compat.event_storage()
    buffers = KeptBuffers(model)
    with kept_random_state(), EventStorage(storage.iter if storage is not None else 0):
        for batch in batches:
            with normalizers.measuring():
                model(batch)
            buffers.restore()


class RestoredBuffers:
    """Normalisers for batches in turn, each of which finds the training buffers as the first did.

    A moving average moves once in an iteration: each batch moves it to the same number.
    """

    def __init__(self, buffers: Sequence[Tensor], normalizers: IterationNormalizers):
        """
        Args:
            buffers: of the loss normalisers.
            normalizers: measured, if there are several batches.
        """
        self._buffers = [(buffer, buffer.clone()) for buffer in buffers]
        self._normalizers = normalizers

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """For the next batch."""
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)
        with self._normalizers.using():
            yield


def warn_of_methods(model: nn.Module) -> None:
    """Say of which methods accumulated batches are still not one batch of all images."""
    for name, method in model.kd.named_methods() if isinstance(model, Distiller) else ():
        why = method.unlike_one_batch()
        if why:
            logger.warning(
                f"train.normalize=iteration: method {name!r} ({type(method).__name__}) still "
                f"depends on how images are divided into batches: {why}"
            )
