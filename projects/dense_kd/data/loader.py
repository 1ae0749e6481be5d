"""A training loader that goes on where an interrupted run stopped."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.data import DatasetFromList
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ..random_state import kept_random_state
from .aspect import wide_images
from .named_errors import NamedErrors
from .order import Division, ResumableSampler, Stretch, Visit
from .visited import Mapper, VisitedImages

logger = logging.getLogger(__name__)


class TrainLoader:
    """The batches of detectron2's training loader, which a resumed run goes on with.

    Images come in the order of detectron2's ``TrainingSampler``, in batches whose images are all
    wider than high, or all not, by the sizes that the dataset tells. What a mapper draws from the
    generators of Python, numpy or torch depends on ``seed`` and on the image's place in that order
    alone: batches are the same with any number of workers, and the generators of the process stay
    as they were.

    After ``load_state_dict``, the batches are those that the interrupted run would have had next.
    With batches of another size, or in another number of processes, the images that have not been
    taken come next, in the same order.
    """

    def __init__(
        self,
        dataset: list[dict[str, Any]],
        *,
        mapper: Mapper,
        total_batch_size: int,
        aspect_ratio_grouping: bool = True,
        num_workers: int = 0,
        seed: int | None = None,
    ):
        """
        Args:
            dataset, mapper, total_batch_size, num_workers: see
                ``detectron2.data.build_detection_train_loader``.
            aspect_ratio_grouping: whether the images of a batch are all wider than high, or all
                not.
            seed: of the order of the images, and of what the mapper draws; None draws one.

        Raises:
            ValueError: the dataset is empty, or the processes cannot share a batch.
            DatasetError: an image has no size to be grouped by; or, of a batch, the mapper fails
                for the image that it names.
        """
        if not len(dataset):
            raise ValueError("dataset is empty; expected at least one image")
        self._rank, processes = comm.get_rank(), comm.get_world_size()
        if total_batch_size < 1 or total_batch_size % processes:
            raise ValueError(
                f"total_batch_size={total_batch_size}: expected a multiple of the {processes} "
                "processes, which share it"
            )
        self.sampler = ResumableSampler(
            len(dataset), comm.shared_random_seed() if seed is None else int(seed)
        )
        self.num_images = 0
        self._given_seed = seed
        group_of = wide_images(dataset).__getitem__ if aspect_ratio_grouping else None
        self._division = Division(total_batch_size, processes, group_of)
        self._stretch = Stretch()
        listed = isinstance(dataset, list)
        self._images = DatasetFromList(dataset, copy=False) if listed else dataset
        self._mapper = NamedErrors(mapper)
        self._num_workers = num_workers
        self._seeds_images = True  # but in a run that an earlier version began

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        total = self._division.total_batch_size
        size = total // self._division.num_processes
        batches = iter(self._division.batches(self.sampler, self._stretch, self._rank))
        taken = (self.num_images - self._stretch.num_images) // total
        visits = itertools.chain.from_iterable(itertools.islice(batches, taken, None))
        images = iter(self._image_loader(visits))
        while True:
            with self._keeping_generators():
                batch = [*itertools.islice(images, size)]
            self.num_images += total
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """What the place in the data depends on; equal in all processes."""
        return {
            "seed": self.sampler.seed,
            "num_images": self.num_images,
            "dataset_size": self.sampler.size,
            "stretch": self._stretch.state_dict(),
            "seeds_images": self._seeds_images,
            **self._divided(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Must come before the first batch is taken."""
        self._warn_of_other_data(state)
        self.sampler.seed = state["seed"]
        if "num_images" in state:
            self.num_images = state["num_images"]
        else:  # of version 0.1, which counted batches
            self.num_images = state["num_batches"] * self._division.total_batch_size
        # Mappers of version 0.1 drew from the generators of the process, as they then go on to.
        self._seeds_images = state.get("seeds_images", False) or self._num_workers > 0
        if "stretch" in state and state["dataset_size"] == self.sampler.size:
            self._stretch = self._continued(Stretch.of(state["stretch"]), state)
        else:
            self._stretch = Stretch(start=self.num_images, num_images=self.num_images)

    def _divided(self) -> dict[str, Any]:
        return {
            "total_batch_size": self._division.total_batch_size,
            "num_processes": self._division.num_processes,
            "aspect_ratio_grouping": self._division.group_of is not None,
        }

    def _continued(self, stretch: Stretch, state: dict[str, Any]) -> Stretch:
        """``stretch``, or the one that begins after it where images are divided otherwise."""
        ours = self._divided()
        changes = [f"{k} {state[k]} -> {new}" for k, new in ours.items() if state[k] != new]
        if not changes:
            return stretch
        logger.warning(
            f"The run goes on with the images that come next, but not bit for bit as it would have "
            f"with the same batches: {', '.join(changes)}"
        )
        group_of = None
        if state["aspect_ratio_grouping"]:
            group_of = self._division.group_of or wide_images(self._images).__getitem__
        before = Division(state["total_batch_size"], state["num_processes"], group_of)
        taken = (self.num_images - stretch.num_images) // before.total_batch_size
        return before.stretch_after(self.sampler, stretch, taken)

    def _warn_of_other_data(self, state: dict[str, Any]) -> None:
        if "num_images" not in state:
            logger.warning(
                f"The checkpoint counts {state['num_batches']} batches and not images; the run "
                f"goes on as if each had {self._division.total_batch_size}"
            )
        size = state.get("dataset_size", self.sampler.size)
        if size != self.sampler.size:
            logger.warning(
                f"The training dataset had {size} images when the checkpoint was written, now "
                f"{self.sampler.size}: they come in another order, and images that were taken in "
                "this epoch already may come again"
            )
        if self._given_seed not in (None, state["seed"]):
            logger.warning(
                f"The order of the images stays that of the checkpoint, of seed {state['seed']}; "
                f"seed={self._given_seed} of this run's loader is not used"
            )

    def _image_loader(self, visits: Iterator[Visit]) -> DataLoader[Any]:
        """Of single images, in this order; workers read ahead."""
        images = VisitedImages(
            self._images,
            self._mapper,
            seed=self.sampler.seed if self._seeds_images else None,
            group_of=self._division.group_of,
        )
        return DataLoader(
            images,
            sampler=visits,
            batch_size=None,
            num_workers=self._num_workers,
            collate_fn=_itself,
            generator=torch.Generator(),  # or it would draw from that of the process
        )

    def _keeping_generators(self) -> contextlib.AbstractContextManager[Any]:
        if self._num_workers == 0 and self._seeds_images:
            return kept_random_state(gpus=False)
        return contextlib.nullcontext()


def _itself(image: Any) -> Any:
    return image
