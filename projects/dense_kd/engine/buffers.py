"""Values that the buffers of a model had, to give them back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import compat

__all__ = ["KeptBuffers"]

COUNTER = "num_batches_tracked"


class KeptBuffers:
    """Copies of all buffers of a model.

    To keep and to restore them copies those alone that have changed, which is told by their
    versions. Torch's batch norms write their statistics without a new version, but count their
    batches: those of a module change with its counter.
    """

    def __init__(self, model: nn.Module):
        """Keep what is there now.

        Args:
            model: which gets no other modules or names of buffers from now on.
        """
        self._places = [
            (f"{prefix}.{key}".lstrip("."), module._buffers, key)
            for prefix, module in model.named_modules()
            for key, buffer in module._buffers.items()
            if buffer is not None
        ]
        self._values = [there[key].detach().clone() for _, there, key in self._places]
        self._versions = self._now()

    def keep(self) -> None:
        """Keep what is there now instead."""
        now = self._now()
        changed = self._changed(now)
        current = [self._buffer(i).detach() for i in changed]
        if all(self._values[i].shape == value.shape for i, value in zip(changed, current)):
            compat.copy_all([self._values[i] for i in changed], current)
        else:
            for i, value in zip(changed, current):
                self._values[i] = value.clone()
        self._versions = now

    @torch.no_grad()
    def restore(self) -> None:
        """Give the buffers the values that are kept."""
        for i in self._changed(self._now()):
            self._buffer(i).copy_(self._values[i])
        self._versions = self._now()

    def named(self) -> dict[str, Tensor]:
        """What is kept."""
        return {name: value for (name, _, _), value in zip(self._places, self._values)}

    def _buffer(self, index: int) -> Tensor:
        _, there, key = self._places[index]
        return there[key]

    def _changed(self, now: list[tuple[Tensor, int, int]]) -> list[int]:
        pairs = zip(self._versions, now)
        return [
            i for i, (old, new) in enumerate(pairs) if old[0] is not new[0] or old[1:] != new[1:]
        ]

    def _now(self) -> list[tuple[Tensor, int, int]]:
        """Each buffer, its version, and that of the counter beside it."""
        found = []
        for _, there, key in self._places:
            counter = there.get(COUNTER)
            batches = counter._version if counter is not None else 0
            found.append((there[key], there[key]._version, batches))
        return found
