"""What losses are divided by: counts of one batch, or means over all batches of an iteration."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from detectron2.utils import comm
from torch import Tensor

__all__ = [
    "MODES",
    "IterationNormalizers",
    "at_least",
    "counted_once",
    "is_over_iterations",
    "mean_over_processes",
    "over_iteration",
]

MODES = ("batch", "iteration")
"""What the losses of accumulated batches are divided by, ``train.normalize``."""

_active: IterationNormalizers | None = None


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a scalar over all processes, without gradient; see :func:`over_iteration`."""
    value = value.detach()
    return _averaged(value) if _active is None else over_iteration(value)


def over_iteration(value: Tensor) -> Tensor:
    """A count of this batch that losses are divided by, or, where those of an iteration are
    normalised together, its mean over the iteration's batches and over all processes.

    Detectors and methods ask in the same order for each batch, for values of shapes that do not
    depend on it.

    Args:
        value: a scalar, or one for each level; a number of any type.
    """
    return value if _active is None else _active._mean(value.detach())


def counted_once(value: Tensor) -> Tensor:
    """What this batch adds to a running count, so that all batches of an iteration find the same:
    the first adds the sum over them, the others nothing; ``value`` where each is normalised alone.

    Args:
        value: whole numbers of this batch; of several processes, their mean is taken.
    """
    if _active is None:
        return value
    found = over_iteration(value)
    if _active.is_measuring:
        return value
    total = (found * _active.num_batches).round().to(value.dtype)
    return total if _active.is_first else torch.zeros_like(value)


def is_over_iterations() -> bool:
    """Whether :func:`over_iteration` gives anything else than it is given."""
    return _active is not None


def at_least(value: Tensor, least: float) -> Tensor:
    """A count of :func:`over_iteration` that is, of all batches together, at least ``least``."""
    return value.clamp(min=least if _active is None else least / _active.num_batches)


class IterationNormalizers:
    """The means over the batches of an iteration, which are measured before they are used.

    The mean over k batches of losses that are divided by the mean of their k counts is the loss of
    one batch with all of their images, which is divided by its own count: so it is enough to know
    the counts before any gradient is computed. As in::

        normalizers = IterationNormalizers(2)
        for batch in batches:
            with normalizers.measuring(), torch.no_grad():
                model(batch)
        for batch in batches:
            with normalizers.using():
                losses = model(batch)

    A single batch needs no measuring: its counts are averaged over the processes as they come.
    """

    def __init__(self, num_batches: int):
        """
        Args:
            num_batches: of an iteration, of each process.
        """
        self.num_batches = num_batches
        self._seen: list[list[Tensor]] = []
        self._next: int | None = None  # of the counts, while they are used
        self._used = 0

    @property
    def is_measuring(self) -> bool:
        """Whether counts are noted, and not used yet."""
        return self._next is None

    @property
    def is_first(self) -> bool:
        """Whether it is the first batch that uses them."""
        return self._used == 1

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Note the counts of one batch."""
        self._seen.append([])
        self._next = None
        with self._activated():
            yield

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Give the means instead of the counts of one batch.

        Raises:
            RuntimeError: other counts are asked for than were measured.
        """
        self._next = 0
        self._used += 1
        with self._activated():
            yield
        if self.num_batches > 1 and any(len(each) != self._next for each in self._seen):
            raise RuntimeError(
                f"{self._next} counts were asked for, and {[*map(len, self._seen)]} measured; "
                "train.normalize=iteration needs losses that ask for the same ones of every batch"
            )

    @contextlib.contextmanager
    def _activated(self) -> Iterator[None]:
        global _active
        before, _active = _active, self
        try:
            yield
        finally:
            _active = before

    def _mean(self, value: Tensor) -> Tensor:
        if self._next is not None and self.num_batches > 1:
            index, self._next = self._next, self._next + 1
            return torch.stack([each[index] for each in self._seen]).mean(dim=0)
        mean = _averaged(value.float())
        if self._next is None:
            self._seen[-1].append(mean)
        return mean


def _averaged(value: Tensor) -> Tensor:
    value = value.clone()
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(value)
        value /= comm.get_world_size()
    return value
