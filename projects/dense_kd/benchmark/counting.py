"""Kernels, stops and uploads of a distillation's step, counted on a pretended GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from omegaconf import DictConfig
from torch import Tensor

from ..compat import uncompiled
from .batches import COCO_BOXES, drawn_batch
from .machine import threads
from .models import Models
from .pretended import GPU, Counts, pretended_gpu
from .work import STEP, STUDENT, Work

COUNTED_IMAGES = 2
COUNTED_SIZE = (128, 128)


def count_kernels(cfg: DictConfig) -> dict[str, dict[str, int]]:
    """{"student", "teacher", "<method> teacher", "step", names of methods: {"forward", "backward",
    "stops", "uploads"}} of two images of 128 x 128 pixels with seven boxes each.

    Without the optimizer. Of teachers there is no backward pass, and nothing where none is there.

    Args:
        cfg: of a distillation, which is read as on a GPU.
    """
    # On so small maps, threads would wait for each other.
    with threads(1), pretended_gpu() as gpu, uncompiled():
        model = Models(torch.device("cuda")).distiller(cfg)
        student = model.student
        batch = drawn_batch(cfg, student, COUNTED_IMAGES, COUNTED_SIZE, COCO_BOXES)
        work = Work(cfg, model, batch)
        forwards: dict[str, Callable[[], Tensor | None]] = {
            STUDENT: lambda: work.losses(student),
            **work.teachers(),
            STEP: lambda: work.losses(model),
        }
        for name in work.methods:
            inputs = work.inputs()
            forwards[name] = lambda n=name, i=inputs: work.method(n, i)  # type: ignore[misc]
        found = {}
        for name, forward in forwards.items():
            work.forget_gradients()  # to add to them would count
            found[name] = _counted(gpu, forward)
        return found


def _counted(gpu: GPU, forward: Callable[[], Tensor | None]) -> dict[str, int]:
    with gpu.counting() as before:
        total = forward()
    with gpu.counting() as after:
        if total is not None:
            total.backward()
    both = Counts(before.root)
    both.include(before)
    both.include(after)
    return {
        "forward": before.kernels,
        "backward": after.kernels,
        "stops": both.stops,
        "uploads": both.uploads,
    }
