"""What each of several processes goes on with that the first one, which saves, does not have.

Parameters and optimizer are equal in all of them. Random generators are not, nor are buffers that
a process makes of its own images: loss normalisers, counts, statistics of plain batch norms.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from ...checkpoint.layouts.wrappers import unwrapped
from ...random_state import RandomState

ProcessState = dict[str, Any]
"""{"random": of :meth:`RandomState.plain`, "buffers": those that differ from the first process's}
in tensors, containers and numbers."""


def other_processes(model: nn.Module, random: RandomState) -> list[ProcessState]:
    """Of the processes from the second on, in the first one; others get nothing. All must call it.

    Args:
        model: that is trained, maybe in DDP.
        random: the generators of this process.
    """
    if comm.get_world_size() == 1:
        return []
    gathered = comm.gather((random.plain(), _buffers(model)))
    if not gathered:
        return []
    (_, ours), *others = gathered
    return [
        {
            "random": theirs_random,
            "buffers": {k: v for k, v in theirs.items() if not torch.equal(v, ours[k])},
        }
        for theirs_random, theirs in others
    ]


def restore(state: ProcessState, model: nn.Module) -> None:
    """Go on with the state of this process, after what all have in common was loaded."""
    RandomState.of(state["random"]).restore()
    buffers = dict(unwrapped(model).named_buffers())
    for name, value in state["buffers"].items():
        if name in buffers and buffers[name].shape == value.shape:
            buffers[name].copy_(value)


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in unwrapped(model).named_buffers()}
