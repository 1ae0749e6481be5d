"""What a training step asks of a GPU, and the table of how much that may be.

The table is ``tests/devices/costs.json``; in the folder ``tests``,

    python -m helpers.device_costs

measures again and writes the part of it that belongs to the installed detectron2. What a step of
three levels and two images of 64 pixels costs says nothing about seconds. It says how many kernels
a GPU has to start, each of which takes the host some microseconds, and how often the host waits
for it, after which the GPU has nothing to do until the host has asked for more.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import detectron2
import pytest
import torch
from torch import nn

from dense_kd import Distiller
from dense_kd.benchmark.pretended import GPU, Counts, pretended_gpu
from dense_kd.detectors import DenseDetector
from helpers import method_cases
from helpers.detector_variants import VARIANTS
from helpers.feature_cases import distill
from helpers.method_cases import PAIRS, make_method

TABLE = Path(__file__).parents[1] / "devices" / "costs.json"
COMMAND = "python -m helpers.device_costs (in the folder tests)"
OBJECTS = [[4.0, 6.0, 40.0, 44.0], [20.0, 10.0, 58.0, 60.0]]


class Cost(NamedTuple):
    """See ``Counts``."""

    kernels: int
    stops: int
    uploads: int

    @classmethod
    def of(cls, counts: Counts) -> Cost:
        return cls(counts.kernels, counts.stops, counts.uploads)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(ours - theirs for ours, theirs in zip(self, other)))


def images() -> list[dict[str, Any]]:
    """One with two objects, and one without."""
    return method_cases.images_with(OBJECTS, [])


def of_step(gpu: GPU, model: nn.Module) -> Cost:
    """Of a forward and a backward pass under bfloat16 autocast, without the optimizer."""
    model.zero_grad(set_to_none=True)
    with gpu.counting() as counts:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            losses = model(images())
        sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    return Cost.of(counts)


def of_inference(gpu: GPU, model: DenseDetector) -> Cost:
    """Of finding what is in two images."""
    with gpu.counting() as counts, torch.no_grad():
        model.eval()(images())
    return Cost.of(counts)


def of_method(gpu: GPU, model: Distiller) -> Cost:
    """What the method adds to the student's step and to the passes of teachers.

    Args:
        gpu: on which both detectors are.
        model: of :func:`distiller`.
    """

    def uncounted(run: Callable[..., Any], *args: Any, **options: Any) -> Any:
        with gpu.uncounted():
            return run(*args, **options)

    with contextlib.ExitStack() as stack:
        for teacher in model.teachers.values():
            run = functools.partial(uncounted, teacher.run)
            stack.enter_context(mock.patch.object(teacher, "run", run))
        total = of_step(gpu, model)
    return total - _of_student(gpu, model.student)


_STUDENTS: dict[str, Cost] = {}


def _of_student(gpu: GPU, student: DenseDetector) -> Cost:
    """Of its step alone, which the methods share."""
    structure = repr(student)
    if structure not in _STUDENTS:
        with gpu.uncounted():
            _STUDENTS[structure] = of_step(gpu, student)
    return _STUDENTS[structure]


def distiller(name: str, variant: str) -> Distiller:
    """One of ``method_cases.VARIANTS``, of three levels, made of a student on the GPU."""
    pair = PAIRS[name][variant]
    student = pair.build(width=4).to("cuda")
    make_teacher = functools.partial(pair.build, seed=1, width=4, channels=24)
    return distill(student, make_teacher().to("cuda"), make_method(name, pair, make_teacher))


def of_all() -> dict[str, Any]:
    """The part of the table that belongs to what is installed."""
    table: dict[str, Any] = {"torch": torch_version(), "step": {}, "inference": {}, "method": {}}
    with pretended_gpu() as gpu:
        for name, variant in VARIANTS.items():
            model = variant.model().to("cuda")
            table["step"][name] = of_step(gpu, model)
            table["inference"][name] = of_inference(gpu, model)
        for name, variant in method_cases.VARIANTS:
            found = of_method(gpu, distiller(name, variant))
            table["method"][" ".join(filter(None, (name, variant)))] = found
    return table


def check(kind: str, name: str, found: Cost, gpu: GPU) -> None:
    """Fail if a cost is above that of the table, and warn if it is below.

    Other versions of torch need some other kernels for the same operations, so kernels are only
    compared with the version that the table was written with.

    Args:
        kind: "step" or "inference" of a detector, or "method".
        name: in the table.
        found: now.
        gpu: on which it was counted.
    """
    table = written().get(detectron2.__version__)
    if table is None:
        pytest.skip(f"no costs are known for detectron2 {detectron2.__version__}; run {COMMAND}")
    if name not in table[kind]:
        pytest.fail(f"{TABLE.name} has no costs of {name!r}; run {COMMAND}")
    allowed = Cost(*table[kind][name])
    if table["torch"] != torch_version():
        allowed = allowed._replace(kernels=found.kernels)
    what = f"{name}: found are {found}, {TABLE.name} has {allowed}"
    if any(ours > theirs for ours, theirs in zip(found, allowed)):
        pytest.fail(f"{what}; the host waits here:\n{gpu.counts.report('stop')}")
    if found != allowed:
        warnings.warn(f"costs fell: {what}; write the new numbers with {COMMAND}", stacklevel=2)


def torch_version() -> str:
    """Major and minor."""
    return ".".join(torch.__version__.split(".")[:2])


def written() -> dict[str, Any]:
    """{version of detectron2: what :func:`of_all` gives}."""
    return json.loads(TABLE.read_text()) if TABLE.exists() else {}


def main() -> None:
    """Write the part of the table that belongs to the installed versions."""
    table = {**written(), detectron2.__version__: of_all()}
    text = json.dumps(table, indent=1)
    # One cost a line.
    TABLE.write_text(
        re.sub(r"\[\s*(-?\d+),\s*(-?\d+),\s*(-?\d+)\s*\]", r"[\1, \2, \3]", text) + "\n"
    )
    print(f"wrote {TABLE}")


if __name__ == "__main__":
    main()
