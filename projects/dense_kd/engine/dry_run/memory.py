"""The peak of memory: of a GPU what torch has allocated, of a CPU what the process resides in."""

from __future__ import annotations

import ctypes
import gc

import torch

_STATUS = "/proc/self/status"
_REFERENCES = "/proc/self/clear_refs"
_RESET_PEAK = "5"


class PeakMemory:
    """Measures from :meth:`restart` to :meth:`read`, above what there was when it was made.

    What the process has freed by then, but the allocator of C keeps resident for what comes next,
    goes back to the system first. A model that is built of it would seem to take nothing.
    """

    def __init__(self, device: torch.device):
        """
        Args:
            device: of the model, which is not built yet.
        """
        self.device = device
        self._before = None
        if device.type == "cpu":
            _release_freed()
            self._before = _resident("VmRSS")
        self._restarted = False

    def restart(self) -> None:
        """Forget the peak so far."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            with open(_REFERENCES, "w") as file:
                file.write(_RESET_PEAK)
            self._restarted = True
        except OSError:  # no Linux, or not allowed
            self._restarted = False

    def read(self) -> tuple[int | None, str]:
        """(bytes or None, what they are of)."""
        if self.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.device).total_memory
            return (
                torch.cuda.max_memory_allocated(self.device),
                f"allocated by torch, of {total / 2**30:.0f} GB of {self.device}",
            )
        if self.device.type != "cpu":
            return None, f"not measured on {self.device.type}"
        peak = _resident("VmHWM")
        if peak is None or self._before is None:
            return None, "not measured: this system has no /proc/self/status"
        since = "" if self._restarted else ", the highest since its start"
        return (
            max(0, peak - self._before),
            f"resident, above what the process had before the model was built{since}",
        )


def _release_freed() -> None:
    """Give back to the system what nobody holds, garbage included."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)


def _resident(key: str) -> int | None:
    """A line of Linux's account of this process, in bytes."""
    try:
        with open(_STATUS) as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(values[0]) * 1024 if values else None
