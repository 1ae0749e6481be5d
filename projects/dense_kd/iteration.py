"""Which iteration a training step belongs to, with and without a trainer."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from . import compat

logger = logging.getLogger(__name__)

_UNCHANGED_PASSES = 200


class IterationCounter:
    """Counts the iterations of a run, from 0.

    Where detectron2's EventStorage is open, as in its trainers, its iteration is the iteration.
    In any other loop a new one begins once an optimizer has made a step since the last pass, or a
    parameter was changed in place: batches whose gradients are accumulated are one iteration, as
    they are in a trainer, and what is no training step counts nothing.
    """

    def __init__(self) -> None:
        self._current = 0
        self._has_run = False
        self._versions: int | None = None  # None: an EventStorage counted
        self._has_stepped = False
        self._unchanged = 0
        self._sees_optimizers = False

    @torch.compiler.disable  # it would be compiled anew for every number
    def advance(self, parameters: Iterable[nn.Parameter]) -> int:
        """The iteration of the training pass that begins.

        Args:
            parameters: of the model.
        """
        storage = compat.event_storage()
        if storage is not None:
            self._current, self._versions, self._has_run = storage.iter, None, True
            return self._current
        parameters = list(parameters)
        if not self._sees_optimizers:
            self._look_at_optimizers({id(parameter) for parameter in parameters})
        if self._has_run:
            finished = self._has_finished(parameters)
            self._current += finished
            self._warn_if_nothing_changes(not finished)
        self._versions, self._has_run, self._has_stepped = _versions(parameters), True, False
        return self._current

    def following(self, parameters: Iterable[nn.Parameter]) -> int:
        """The iteration that a run goes on with that is continued from here."""
        return self._current + (self._has_run and self._has_finished(parameters))

    def restart(self, iteration: int) -> None:
        """Let the next pass belong to ``iteration``."""
        self._current, self._has_run = iteration, False

    def _has_finished(self, parameters: Iterable[nn.Parameter]) -> bool:
        # Fused optimizers do not raise the versions, changes by hand are no optimizer's.
        return self._has_stepped or self._versions != _versions(parameters)

    def _look_at_optimizers(self, ids: set[int]) -> None:
        this = weakref.ref(self)

        def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            counter = this()
            if counter is not None and any(
                id(parameter) in ids
                for group in optimizer.param_groups
                for parameter in group["params"]
            ):
                counter._has_stepped = True

        weakref.finalize(self, register_optimizer_step_post_hook(after_step).remove)
        self._sees_optimizers = True

    def _warn_if_nothing_changes(self, unchanged: bool) -> None:
        self._unchanged = self._unchanged + 1 if unchanged else 0
        if self._unchanged == _UNCHANGED_PASSES:
            logger.warning(
                f"No parameter has changed over {_UNCHANGED_PASSES} training passes, so the "
                f"iteration is still {self._current}, and a warm-up does not go on. If there were "
                "steps (by hand, to parameter.data), train within detectron2's EventStorage, whose "
                "step() counts"
            )

    def __getstate__(self) -> dict[str, Any]:  # a copy has parameters of its own
        return {**self.__dict__, "_sees_optimizers": False}


def _versions(parameters: Iterable[nn.Parameter]) -> int:
    """A number that grows with every change of a parameter in place; reading it is free."""
    return sum(parameter._version for parameter in parameters)
