"""The peak of memory of a piece of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from .. import compat
from ..outputs import DensePass, LeftOut

MEMORY_OF = {
    "cpu": "bytes of torch's allocator at the peak of a part, above those before it, as "
    "torch.profiler sees them; workspaces that a library takes by itself are not in it",
    "cuda": "torch.cuda.max_memory_allocated during a part, above torch.cuda.memory_allocated "
    "before it",
}
"""{type of device: what :func:`peak_memory` gives, in words}"""


def peak_memory(run: Callable[[], object], device: torch.device) -> int:
    """The most bytes that ``run()`` has allocated at a time, above what there was before.

    Args:
        run: the work.
        device: of the work, "cpu" or "cuda".
    """
    return _peak_on_gpu(run, device) if device.type == "cuda" else peak_of_tensors(run)


def peak_of_tensors(run: Callable[[], object]) -> int:
    """The most bytes of tensors that ``run()`` has allocated at a time on the CPU."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    events = profile.profiler.kineto_results.events()
    changes = [event for event in events if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=compat.start_of_event):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _peak_on_gpu(run: Callable[[], object], device: torch.device) -> int:
    compat.wait_for(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    compat.wait_for(device)
    return torch.cuda.max_memory_allocated(device) - before


def bytes_of_pass(dense: DensePass) -> int:
    """Of all tensors that a pass holds, each storage once."""
    storages = (tensor.untyped_storage() for tensor in _tensors(vars(dense)))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, dict)) and not isinstance(value, LeftOut):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def bytes_of(model: torch.nn.Module) -> int:
    """Of its parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
