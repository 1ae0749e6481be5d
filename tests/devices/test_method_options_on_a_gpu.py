"""Every choice that a method has runs on a GPU: each is code of its own."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from dense_kd import Distiller, methods
from dense_kd.benchmark.pretended import Pretended, pretended_gpu
from helpers.builders import batch
from helpers.feature_cases import distill
from helpers.method_cases import PAIRS
from helpers.method_options import Probe, contexts


@pytest.fixture(scope="module", autouse=True)
def gpu():
    with pretended_gpu() as gpu:
        yield gpu
    _seen.cache_clear()


@functools.cache
def _seen(make: Any) -> tuple[Distiller, tuple]:
    """A distiller of two such detectors on the GPU, and what a method gets in a step of it."""
    student = make(width=4).to("cuda")
    teacher = make(seed=1, width=4, channels=24).to("cuda")
    probe = Probe(student.head.depth)
    model = distill(student, teacher, probe)
    with torch.no_grad():
        model(batch()[:1])
    return model, probe.seen


@pytest.mark.parametrize(("name", "variant", "choice"), [case for case in contexts() if case[2]])
def test_a_choice_works_there_or_is_refused(name, variant, choice):
    pair = PAIRS[name][variant]
    model, (student, teacher, step) = _seen(pair.build)
    try:
        method = getattr(methods, name)(**{**pair.options, **choice})
        method.check(model.student, model.teacher.model)
        method.prepare(model.student, model.teacher.model)
    except ValueError:  # by these detectors, or beside the other options
        return
    losses = method(student, teacher, step)
    assert all(isinstance(loss, Pretended) and loss.isfinite() for loss in losses.values())
