"""What benchmarks/results has of methods by themselves, as tables for tools/docs_pages.py."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docstring_markdown import table

from dense_kd.benchmark.text import costs_of
from dense_kd.json_files import read_json

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"

_ABOUT = (
    "`methods` is 1 and what the method adds to a step, `price` a step with a teacher to one "
    "without, `memory` the peak of such a step to that of the student's and of the teacher's pass, "
    "`kernels` those of the method, forward and backward; see [what a distillation "
    "costs](../performance.md)."
)
_NOT_MEASURED = (
    "It is in no file of `benchmarks/results` by itself. [Choosing a "
    "method](../choosing_a_method.md) has its memory; `dense-kd benchmark CONFIG` measures it."
)
_COLUMNS = ["methods", "price", "memory", "kernels"]
_NONE = "-"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A run of `dense-kd benchmark` without overrides.

    Attributes:
        method: its only one.
        config: of the distillation.
        images: how many of which size; "" where only kernels were counted.
        costs: methods, price, memory and kernels, as :func:`costs_of` has them.
    """

    method: str
    config: str
    images: str
    costs: list[str]


@functools.cache
def measured() -> list[Measured]:
    """The newest of each config and size, with the newest count of its kernels."""
    newest: dict[tuple[str, str], Measured] = {}
    kernels: dict[str, str] = {}
    for content, run in _runs():
        (key, method), *others = run["methods"].items()
        if others or run["overrides"]:
            continue
        batch = content["batch"]
        size = f"{batch['images']} x {batch['height']} x {batch['width']}"
        costs = costs_of(run, key)
        if costs[-1] != _NONE:
            kernels.setdefault(run["config"], costs[-1])
        timed = run["price"] is not None
        entry = Measured(method, run["config"], size if timed else "", costs)
        newest.setdefault((entry.config, entry.images), entry)
    timed_configs = {config for config, images in newest if images}
    return [
        dataclasses.replace(e, costs=[*e.costs[:-1], kernels.get(e.config, _NONE)])
        for e in newest.values()
        if e.images or e.config not in timed_configs
    ]


def _runs() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Of each file of results with its content, the newest folder first."""
    for folder in sorted(RESULTS.glob("*_*/"), reverse=True):
        for file in sorted(folder.glob("*.json")):
            content = read_json(file)
            for run in content["runs"] if "rounds" in content else []:
                yield content, run


def cost(method: str) -> str:
    """Of one method, all that was measured."""
    rows = [
        [f"`{each.config}`", each.images or _NONE, *each.costs]
        for each in sorted(measured(), key=lambda each: (each.config, each.images))
        if each.method == method
    ]
    if not rows:
        return _NOT_MEASURED
    return f"{_ABOUT}\n\n{table(['config', 'images', *_COLUMNS], rows)}"


def costs_side_by_side(size: str = "1 x 480 x 640") -> str:
    """Of each method what it costs for GFL, R101 to R50.

    Args:
        size: of the images.
    """
    rows = [
        [f"[{each.method}](methods/{each.method.lower()}.md)", *each.costs]
        for each in sorted(measured(), key=lambda each: each.costs)
        if each.images == size and each.config.endswith("/gfl_r101_r50_1x")
    ]
    return table(["method", *_COLUMNS], rows)
