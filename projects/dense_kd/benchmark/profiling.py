"""Where the time of a step goes, operator by operator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from .. import compat
from ..checkpoint import write_text
from .errors import BenchmarkError
from .work import Part

SUFFIXES = (".json", ".txt")
"""A trace for chrome://tracing or ui.perfetto.dev, and a table of operators."""

_ROWS = 50


def check_profile_name(file: str) -> None:
    """Raise BenchmarkError unless the name of a file says what is to be in it."""
    if not file.endswith(SUFFIXES):
        raise BenchmarkError(
            f"profile {file}: expected a name that ends with .json (a trace for a browser) or .txt "
            "(a table of operators)"
        )


def write_profile(file: str, steps: Mapping[str, Part], device: torch.device) -> None:
    """Profile one step of each distillation, which warm-up came before.

    Args:
        file: to write, see :data:`SUFFIXES`; its folder is made where there is none.
        steps: {title: step}; the title marks it in the trace.
        device: of the steps.
    """
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with profile(activities=activities) as found:
        for title, part in steps.items():
            part.prepare()
            with record_function(title):
                part.run()
                compat.wait_for(device)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    if file.endswith(".json"):
        found.export_chrome_trace(file)
        return
    order = compat.order_of_profile(device)
    write_text(file, found.key_averages().table(sort_by=order, row_limit=_ROWS) + "\n")
