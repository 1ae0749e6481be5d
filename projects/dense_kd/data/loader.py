"""A training loader that goes on where an interrupted run stopped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Callable

from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm


class ResumableSampler(TrainingSampler):
    """detectron2's TrainingSampler (an infinite shuffle over all processes), from any place on."""

    start = 0
    """Indices of this process to leave out."""

    def __iter__(self) -> Iterator[int]:
        start = self._rank + self.start * self._world_size
        yield from itertools.islice(self._infinite_indices(), start, None, self._world_size)

    @property
    def seed(self) -> int:
        """Of the shuffle; equal on all processes."""
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self._seed = seed


class TrainLoader:
    """The batches of detectron2's training loader, and how many of them were taken.

    After ``load_state_dict`` it gives the images that come next in the order of the interrupted
    run. With images of different aspect ratios, which are batched apart, the few that waited for
    their batch to fill are left out.
    """

    def __init__(
        self,
        dataset: list[dict[str, Any]],
        *,
        mapper: Callable[[dict[str, Any]], dict[str, Any]],
        total_batch_size: int,
        aspect_ratio_grouping: bool = True,
        num_workers: int = 0,
        seed: int | None = None,
    ):
        """
        Args:
            dataset, mapper, total_batch_size, aspect_ratio_grouping, num_workers: see
                ``detectron2.data.build_detection_train_loader``.
            seed: of the order of the images; None draws one.
        """
        self.sampler = ResumableSampler(len(dataset), seed=seed)
        self.num_batches = 0
        self._batch_size = total_batch_size // comm.get_world_size()
        self._loader = build_detection_train_loader(
            dataset=dataset,
            mapper=mapper,
            sampler=self.sampler,
            total_batch_size=total_batch_size,
            aspect_ratio_grouping=aspect_ratio_grouping,
            num_workers=num_workers,
        )

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in self._loader:
            self.num_batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.sampler.seed, "num_batches": self.num_batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Must come before the first batch is taken."""
        self.sampler.seed = state["seed"]
        self.sampler.start = state["num_batches"] * self._batch_size
        self.num_batches = state["num_batches"]
