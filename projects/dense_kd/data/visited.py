"""Images as a training visits them: what is drawn for each depends on the visit alone."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any, Optional

from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import Dataset

from ..random_state import seed_for
from .build import DatasetError
from .order import MakesGroups, Visit

logger = logging.getLogger(__name__)

Mapper = Callable[[dict[str, Any]], Optional[dict[str, Any]]]

_TRIES = 100
_WARNED_AFTER = 3


class VisitedImages(Dataset[Any]):
    """Maps the image of a :data:`.order.Visit`.

    If the mapper gives None for it, another image of its group takes its place.
    """

    def __init__(
        self,
        images: Sequence[dict[str, Any]],
        mapper: Mapper,
        *,
        seed: int | None,
        group_of: MakesGroups | None,
    ):
        """
        Args:
            images: dataset dicts.
            mapper: of one of them.
            seed: of the run, by which the generators of the process are seeded for each visit;
                None leaves them.
            group_of: see :class:`.order.Batches`.
        """
        self._images = images
        self._mapper = PicklableWrapper(mapper)  # for workers that are not forked
        self._seed = seed
        self._group_of = group_of

    def __getitem__(self, visit: Visit) -> Any:
        """What the mapper makes of it.

        Raises:
            DatasetError: it makes nothing of this and many other images.
        """
        place, index = visit
        if self._seed is not None:
            seed_for(self._seed, place)
        mapped = self._mapper(self._images[index])
        if mapped is not None:
            return mapped
        draw = random.Random(f"{self._seed} {place}")
        for tried in range(1, _TRIES):
            if tried >= _WARNED_AFTER:
                logger.warning(f"The mapper gave None for {tried} images in a row")
            mapped = self._mapper(self._images[self._another(index, draw)])
            if mapped is not None:
                return mapped
        raise DatasetError(
            f"the mapper (dataloader.train.mapper) gave None for {_TRIES} images in a row, one of "
            f"them {self._images[index].get('file_name', index)}; expected a dict of most images"
        )

    def _another(self, index: int, draw: random.Random) -> int:
        """Any image of the same group."""
        while True:
            found = draw.randrange(len(self._images))
            if self._group_of is None or self._group_of(found) == self._group_of(index):
                return found
