"""Rounds of parts, timed one after the other."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from ..compat import wait_for
from .work import Part

Key = TypeVar("Key")


def timed_rounds(
    parts: Mapping[Key, Part],
    device: torch.device,
    *,
    rounds: int,
    warmup: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Key, list[float]]:
    """{part: seconds of each round}.

    Args:
        parts: each is run once a round, in this order or, every second round, the reverse.
        device: that they run on.
        rounds: that are counted.
        warmup: rounds before them.
        progress: is told how many rounds are done, of how many.
    """
    found: dict[Key, list[float]] = {key: [] for key in parts}
    for index in range(warmup + rounds):
        gc.collect()
        gc.disable()
        try:
            for key in parts if index % 2 == 0 else reversed([*parts]):
                seconds = timed(parts[key], device)
                if index >= warmup:
                    found[key].append(seconds)
        finally:
            gc.enable()
        if progress is not None:
            progress(index + 1, warmup + rounds)
    return found


def timed(part: Part, device: torch.device) -> float:
    """Seconds of one run."""
    part.prepare()
    wait_for(device)
    start = time.perf_counter()
    part.run()
    wait_for(device)
    return time.perf_counter() - start


def spread(values: Sequence[float]) -> dict[str, Any]:
    """{"median", "low", "high", "values"}; low and high are the quartiles."""
    low = high = values[0]
    if len(values) > 1:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": statistics.median(values), "low": low, "high": high, "values": [*values]}
