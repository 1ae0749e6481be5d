"""Which image comes when in a training, in each process, and from any point on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch

Visit = tuple[int, int]
"""A place in the order of a run, counted from 0 over all epochs, and the index of its image."""

MakesGroups = Callable[[int], int]
"""The group that the image of an index is batched with."""


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A part of a run that has one batch size and one number of processes.

    Attributes:
        start: the place in the order from which on no image had been taken when it began.
        waiting: places before it that had not been taken either, ascending: their images waited
            for others of their group.
        num_images: taken before.
    """

    start: int = 0
    waiting: tuple[int, ...] = ()
    num_images: int = 0

    def state_dict(self) -> dict[str, Any]:
        """In containers and numbers."""
        return {**dataclasses.asdict(self), "waiting": list(self.waiting)}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Stretch:
        """What :meth:`state_dict` was made of."""
        return cls(**{**state, "waiting": tuple(state["waiting"])})


class ResumableSampler:
    """The infinite shuffle of detectron2's ``TrainingSampler``."""

    def __init__(self, size: int, seed: int):
        """
        Args:
            size: of the dataset.
            seed: of the shuffle.
        """
        self.size = size
        self.seed = seed

    def visits(self, start: int) -> Iterator[Visit]:
        """Those from a place on, without end."""
        generator = torch.Generator()
        generator.manual_seed(self.seed)
        for epoch in itertools.count():
            order = torch.randperm(self.size, generator=generator)
            first = max(start - epoch * self.size, 0)
            yield from enumerate(order[first:].tolist(), epoch * self.size + first)

    def of(self, stretch: Stretch) -> Iterator[Visit]:
        """Those of a stretch, of all processes: what waits comes first."""
        if stretch.waiting:
            waiting, passed = set(stretch.waiting), stretch.start - stretch.waiting[0]
            earlier = itertools.islice(self.visits(stretch.waiting[0]), passed)
            yield from (visit for visit in earlier if visit[0] in waiting)
        yield from self.visits(stretch.start)


class Batches:
    """Visits of one process, put together to batches whose images are of one group.

    As in detectron2, images are taken as they come, and a batch goes out when it is full.

    Attributes:
        num_read: how many visits were looked at.
    """

    def __init__(self, visits: Iterator[Visit], size: int, group_of: MakesGroups | None):
        """
        Args:
            visits: of the process.
            size: of a batch.
            group_of: None puts all in one group.
        """
        self.num_read = 0
        self._visits = visits
        self._size = size
        self._group_of = group_of
        self._waiting: dict[int, list[Visit]] = {}

    def __iter__(self) -> Iterator[list[Visit]]:
        for visit in self._visits:
            self.num_read += 1
            group = 0 if self._group_of is None else self._group_of(visit[1])
            batch = self._waiting.setdefault(group, [])
            batch.append(visit)
            if len(batch) == self._size:
                del self._waiting[group]
                yield batch

    @property
    def waiting(self) -> list[int]:
        """Places of the images whose batch is not full."""
        return [place for batch in self._waiting.values() for place, _ in batch]


@dataclasses.dataclass(frozen=True)
class Division:
    """How the images of a stretch are divided into batches and among processes.

    Attributes:
        total_batch_size: of all processes together.
        num_processes: which share it.
        group_of: see :class:`Batches`.
    """

    total_batch_size: int
    num_processes: int
    group_of: MakesGroups | None

    def batches(self, sampler: ResumableSampler, stretch: Stretch, rank: int) -> Batches:
        """Of one process, from the beginning of the stretch on."""
        visits = itertools.islice(sampler.of(stretch), rank, None, self.num_processes)
        return Batches(visits, self.total_batch_size // self.num_processes, self.group_of)

    def stretch_after(
        self, sampler: ResumableSampler, stretch: Stretch, num_batches: int
    ) -> Stretch:
        """What another division has to begin with after so many batches of each process."""
        read, waiting = [], []
        for rank in range(self.num_processes):
            batches = self.batches(sampler, stretch, rank)
            for _ in itertools.islice(batches, num_batches):
                pass
            read.append(batches.num_read)
            waiting += batches.waiting
        ends = [(n - 1) * self.num_processes + rank + 1 for rank, n in enumerate(read) if n]
        reached = max(ends, default=0)
        for number, (place, _) in enumerate(itertools.islice(sampler.of(stretch), reached)):
            if number // self.num_processes >= read[number % self.num_processes]:
                waiting.append(place)
        return Stretch(
            start=stretch.start + max(reached - len(stretch.waiting), 0),
            waiting=(*sorted(waiting), *stretch.waiting[reached:]),
            num_images=stretch.num_images + num_batches * self.total_batch_size,
        )
