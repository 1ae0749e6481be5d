"""Distillations to be looked at, with the weights of a file."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from dense_kd import PKD, Distiller, MethodSet, Teacher
from dense_kd.checkpoint import AtomicCheckpointer
from dense_kd.diagnostics.making import FigureMaker
from dense_kd.engine.distilled import load_distilled
from helpers.builders import batch, tiny_fcos


def distiller(seed: int = 0) -> Distiller:
    return Distiller(
        student=tiny_fcos(seed=seed),
        teacher=Teacher(tiny_fcos(seed=1), None),
        methods=MethodSet(pkd=PKD()),
        init_student=True,
    )


def weights_of(model: Distiller) -> dict[str, Tensor]:
    return copy.deepcopy(model.student.state_dict())


@pytest.mark.parametrize("of", ["the run", "the student alone"])
def test_figures_and_passes_of_training_are_of_the_student_of_the_file(of, tmp_path):
    trained = distiller(seed=7)
    trained.prepare_training()
    with torch.no_grad():
        trained.student.head.cls_score.weight.mul_(0.5)
    saved = trained if of == "the run" else trained.student
    AtomicCheckpointer(saved, str(tmp_path)).save("saved")
    model = distiller()
    assert load_distilled(model, str(tmp_path / "saved.pth")) == set()
    FigureMaker(model, ["gradients"]).figures(batch()[0])
    model.train()(batch())
    found = weights_of(model)
    for key, value in weights_of(trained).items():
        assert torch.equal(found[key], value), key
