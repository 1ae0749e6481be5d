"""A training loader that goes on where an interrupted run stopped."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any, Callable

from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler

logger = logging.getLogger(__name__)


class ResumableSampler(TrainingSampler):
    """detectron2's TrainingSampler (an infinite shuffle over all processes), from any place on."""

    start = 0
    """Indices to leave out, counted over all processes."""

    def __iter__(self) -> Iterator[int]:
        start = self.start + self._rank
        yield from itertools.islice(self._infinite_indices(), start, None, self._world_size)

    @property
    def seed(self) -> int:
        """Of the shuffle; equal on all processes."""
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self._seed = seed


class TrainLoader:
    """The batches of detectron2's training loader, and how many images were taken.

    After ``load_state_dict`` it gives the images that come next in the order of the interrupted
    run, also in batches of another size or in another number of processes. With images of
    different aspect ratios, which are batched apart, the few that waited for their batch to fill
    are left out.
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
        self.num_images = 0
        self._seed = seed
        self._dataset_size = len(dataset)
        self._total_batch_size = total_batch_size
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
            self.num_images += self._total_batch_size
            yield batch

    def state_dict(self) -> dict[str, int]:
        """What the place in the data depends on."""
        return {
            "seed": self.sampler.seed,
            "num_images": self.num_images,
            "dataset_size": self._dataset_size,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Must come before the first batch is taken."""
        if "num_images" in state:
            self.num_images = state["num_images"]
        else:  # of version 0.1, which counted batches
            self.num_images = state["num_batches"] * self._total_batch_size
            logger.warning(
                f"The checkpoint counts {state['num_batches']} batches and not images; the run "
                f"goes on as if each had {self._total_batch_size}"
            )
        size = state.get("dataset_size", self._dataset_size)
        if size != self._dataset_size:
            logger.warning(
                f"The training dataset had {size} images when the checkpoint was written, now "
                f"{self._dataset_size}: they come in another order, and images that were taken in "
                "this epoch already may come again"
            )
        if self._seed not in (None, state["seed"]):
            logger.warning(
                f"The order of the images stays that of the checkpoint, of seed {state['seed']}; "
                f"seed={self._seed} of this run's loader is not used"
            )
        self.sampler.seed = state["seed"]
        self.sampler.start = self.num_images
