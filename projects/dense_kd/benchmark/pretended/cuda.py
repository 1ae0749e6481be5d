"""What ``torch.cuda`` and its kin answer on the pretended machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch

from .tensor import names_gpu

if TYPE_CHECKING:
    from .frontend import Frontend
    from .gpu import GPU


@contextlib.contextmanager
def replaced_functions(gpu: GPU, frontend: Frontend) -> Iterator[None]:
    """Replace what would ask the driver."""
    with contextlib.ExitStack() as stack:
        for target, names in _replacements(gpu, frontend).items():
            for name, value in names.items():
                stack.enter_context(mock.patch.object(target, name, value))
        yield


def _replacements(gpu: GPU, frontend: Frontend) -> dict[Any, dict[str, Any]]:
    def always(value: Any) -> Callable[..., Any]:
        return lambda *args, **kwargs: value

    def set_state(state: torch.Tensor, device: Any = None) -> None:
        gpu.rng_state = state.clone()

    def set_states(states: list[torch.Tensor]) -> None:
        set_state(*states)

    def seed(number: Any) -> None:
        gpu.rng_state = torch.Generator().manual_seed(int(number)).get_state()

    def location(storage: Any) -> str:
        is_ours = storage.data_ptr() in gpu.saved and storage.device.type == "cpu"
        return "cuda:0" if is_ours else location_tag(storage)

    location_tag = torch.serialization.location_tag
    return {
        **_of_any_accelerator(gpu),
        torch.cuda: {
            "is_available": always(True),
            "is_bf16_supported": always(True),
            "is_current_stream_capturing": always(False),
            "is_initialized": always(True),
            "device_count": always(1),
            "current_device": always(0),
            "set_device": always(None),
            "get_device_name": always("pretended GPU"),
            "get_device_capability": always((9, 0)),
            "synchronize": lambda device=None: gpu.stop("synchronize"),
            "current_stream": lambda device=None: Stream(gpu),
            "Stream": lambda *args, **kwargs: Stream(gpu),
            "stream": lambda stream: contextlib.nullcontext(),
            "Event": lambda *args, **kwargs: Event(gpu),
            "get_rng_state": lambda device=None: gpu.rng_state.clone(),
            "get_rng_state_all": lambda: [gpu.rng_state.clone()],
            "set_rng_state": set_state,
            "set_rng_state_all": set_states,
            "manual_seed": seed,
            "manual_seed_all": seed,
            "empty_cache": always(None),
            "memory_allocated": always(0),
            "max_memory_allocated": always(0),
            "reset_peak_memory_stats": always(None),
        },
        torch: {"Generator": Generator, "clear_autocast_cache": frontend.autocast.forget},
        torch.serialization: {"location_tag": location},
    }


def _of_any_accelerator(gpu: GPU) -> dict[Any, dict[str, Any]]:
    """Those of ``torch.accelerator``, which torch has since 2.6."""
    if not hasattr(torch, "accelerator"):
        return {}
    return {
        torch.accelerator: {
            "current_device_index": lambda: 0,
            "current_stream": lambda device=None: Stream(gpu),
            "synchronize": lambda device=None: gpu.stop("synchronize"),
        }
    }


class Stream:
    """The one stream of the GPU."""

    def __init__(self, gpu: GPU):
        self.gpu = gpu

    def synchronize(self) -> None:
        """The host waits for all that it was asked for."""
        self.gpu.stop("synchronize")

    def is_capturing(self) -> bool:
        """It makes no graph."""
        return False

    def wait_stream(self, stream: Stream) -> None:
        """It waits for itself."""

    def wait_event(self, event: Event) -> None:
        """It comes after all that it was asked for."""

    def record_event(self, event: Event | None = None) -> Event:
        """``event``, or a new one, after what the stream was asked for so far."""
        event = event or Event(self.gpu)
        event.record(self)
        return event


class Event:
    """It has happened once the host has waited for anything that was asked for after it."""

    def __init__(self, gpu: GPU):
        self.gpu = gpu
        self._num_waits: int | None = None

    def record(self, stream: Stream | None = None) -> None:
        """It comes after what the GPU was asked for so far."""
        self._num_waits = self.gpu.num_waits

    def query(self) -> bool:
        """Whether it has happened."""
        return self._num_waits is None or self.gpu.num_waits > self._num_waits

    def synchronize(self) -> None:
        """The host waits for it."""
        if not self.query():
            self.gpu.stop("synchronize")

    def wait(self, stream: Stream | None = None) -> None:
        """The stream does everything in order."""


class Generator(torch.Generator):
    """Random numbers for one of the two devices."""

    _device: torch.device

    def __new__(cls, device: Any = "cpu") -> Generator:
        """As torch makes one, which takes the device there."""
        generator = super().__new__(cls)
        generator._device = torch.device("cuda", 0) if names_gpu(device) else torch.device("cpu")
        return generator

    def __init__(self, device: Any = "cpu"):
        """``device`` is "cuda" or "cpu"."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # nor can it be set in torch
        """Which of the two."""
        return self._device
