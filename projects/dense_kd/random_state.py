"""The random generators of this process: kept, put back, and seeded for one image."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class RandomState(NamedTuple):
    """Of the generators that belong to the process: Python's, numpy's, torch's and its GPUs'."""

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    torch: Tensor
    cuda: list[Tensor]

    @classmethod
    def now(cls, *, gpus: bool = True) -> RandomState:
        """As they are; without ``gpus``, those stay out of it."""
        cuda = torch.cuda.get_rng_state_all() if gpus and torch.cuda.is_available() else []
        numpy: Any = np.random.get_state()
        return cls(random.getstate(), numpy, torch.get_rng_state(), cuda)

    def restore(self) -> None:
        """Go back to it; GPUs only if there are as many as then."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        if self.cuda and len(self.cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(self.cuda)

    def plain(self) -> dict[str, Any]:
        """For a checkpoint: in containers, numbers and tensors."""
        version, numbers, gauss = self.python
        name, keys, position, has_gauss, cached = self.numpy
        as_int64 = torch.from_numpy(np.asarray(keys, dtype=np.int64))
        return {
            "python": [version, list(numbers), gauss],
            "numpy": [name, as_int64, position, has_gauss, cached],
            "torch": self.torch,
            "cuda": self.cuda,
        }

    @classmethod
    def of(cls, plain: dict[str, Any]) -> RandomState:
        """What :meth:`plain` was made of."""
        version, numbers, gauss = plain["python"]
        name, keys, position, has_gauss, cached = plain["numpy"]
        numpy = (name, keys.numpy().astype(np.uint32), position, has_gauss, cached)
        return cls((version, tuple(numbers), gauss), numpy, plain["torch"], plain["cuda"])


@contextlib.contextmanager
def kept_random_state(*, gpus: bool = True) -> Iterator[RandomState]:
    """Whatever is drawn meanwhile, the generators go on as if it had not been; gives their state.

    It takes a fifth of a millisecond.

    Args:
        gpus: whether theirs are kept, too.
    """
    state = RandomState.now(gpus=gpus)
    try:
        yield state
    finally:
        state.restore()


def seed_for(seed: int, place: int) -> None:
    """Seed the generators of the CPU for what is drawn for one image.

    Args:
        seed: of the run.
        place: of the image in the run. Numbers of two places have nothing to do with each other.
    """
    digest = hashlib.blake2b(f"{seed} {place}".encode(), digest_size=20).digest()
    random.seed(digest[:8])
    np.random.seed(int.from_bytes(digest[8:12], "big"))
    torch.default_generator.manual_seed(int.from_bytes(digest[12:], "big"))
