"""Where and with what something was measured."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .. import __version__, compat
from ..engine.comparison.checkouts import has_changes, last_commit
from ..engine.fingerprint import cores

_PACKAGE = Path(__file__).parents[1]
_CPUS = Path("/proc/cpuinfo")
_NUMBERS = {"family": "cpu family", "model": "model"}


def circumstances(device: torch.device) -> dict[str, Any]:
    """{"date", "commit", "changed", "versions", "machine"}, as :data:`.schema.RESULTS` has them.

    Args:
        device: that is measured.
    """
    folder = checkout()
    commit = last_commit(folder) if folder else None
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": commit,
        "changed": has_changes(folder) if folder and commit else None,
        "versions": {"dense_kd": __version__, **compat.versions()},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": cpu_name(),
            "cores": cores(),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        },
    }


def checkout() -> Path | None:
    """The folder of the repository that the package is imported from; None of an installed one."""
    return _PACKAGE.parent.parent if _PACKAGE.parent.name == "projects" else None


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Let operators of torch use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_average() -> list[float] | None:
    """Of the last 1, 5 and 15 minutes; None where the system has none."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def cpu_name() -> str:
    """The processor, by what tells kinds of them apart: providers of virtual machines give many
    kinds one name, and torch rounds by the instructions that it finds."""
    try:
        lines = _CPUS.read_text().splitlines()
    except OSError:
        lines = []
    known: dict[str, str] = {}
    for key, _, value in (line.partition(":") for line in lines):
        known.setdefault(key.strip(), value.strip())
    name = known.get("model name") or platform.processor() or "unknown"
    numbers = [f"{key} {known[part]}" for key, part in _NUMBERS.items() if part in known]
    return ", ".join([name, *numbers, *compat.cpu_instructions()])
