"""No method gives the teacher's predictions a gradient, also where they could take one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dense_kd.outputs import DensePass
from helpers.method_cases import build, every_method, images_with, teacher_of


def leaves(dense: DensePass) -> tuple[DensePass, dict[str, torch.Tensor]]:
    """The pass with all maps as leaves that take gradients, and these by name."""
    predictions = ("logits", "deltas", "quality", "distribution") if dense.has_predictions else ()
    lists = ("features", *predictions)
    maps = {name: getattr(dense, name) or [] for name in lists}
    maps.update({tap: levels for tap, levels in dense.taps.items()})
    maps = {k: [x.detach().requires_grad_() for x in levels] for k, levels in maps.items()}
    taken = {name: maps[name] or None for name in lists}
    taken["taps"] = {tap: maps[tap] for tap in dense.taps}
    named = {f"{k} {i}": x for k, levels in maps.items() for i, x in enumerate(levels)}
    return dataclasses.replace(dense, **taken), named


@every_method
def test_the_pass_of_the_teacher_gets_no_gradient(
    name: str, variant: str, monkeypatch: pytest.MonkeyPatch
):
    model = build(name, variant)
    teacher, maps = teacher_of(model), {}
    run = teacher.run

    def run_with_gradients(*args, **options):
        dense, found = leaves(run(*args, **options))
        maps.update(found)
        return dense

    monkeypatch.setattr(teacher, "run", run_with_gradients)
    losses = model(images_with([[4.0, 6.0, 40.0, 50.0], [30.0, 20.0, 60.0, 62.0]]))
    sum(loss for key, loss in losses.items() if key.startswith("kd_")).backward()
    assert maps
    assert [key for key, x in maps.items() if x.grad is not None] == []
