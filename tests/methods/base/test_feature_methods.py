"""What holds for every method that compares the pyramids of student and teacher."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dense_kd import FGD, MGD, PKD, CanKD
from helpers.builders import CASES, batch, tiny_fcos, tiny_gfl, tiny_retinanet
from helpers.feature_cases import distill

DETECTORS = {"fcos": tiny_fcos, "gfl": tiny_gfl, "retinanet": tiny_retinanet}
METHODS: dict[str, Any] = {"cankd": CanKD, "fgd": FGD, "mgd": MGD, "pkd": PKD}


def distillation_losses(model, inputs) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model(inputs).items() if k.startswith("kd_feature_loss_")}


@pytest.mark.parametrize("width", [16, 24])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("method", METHODS)
def test_a_training_step_gives_every_parameter_but_the_teachers_a_gradient(
    method: str, detector: str, case: str, width: int
):
    build = DETECTORS[detector]
    model = distill(build(), build(seed=1, channels=width), METHODS[method]())
    losses = distillation_losses(model, batch(case))
    assert losses and all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    pyramid = dict(model.student.backbone.named_parameters())
    for name in ("fpn_output3", "fpn_output5", "fpn_lateral3"):
        assert pyramid[f"{name}.weight"].grad.abs().max() > 0
    assert all(p.grad is None for p in model.student.head.parameters())
    for name, parameter in model.kd.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    teacher = model.teacher.model
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_adapters_are_where_the_widths_differ_and_are_trained(method: str):
    equal = distill(tiny_fcos(), tiny_fcos(seed=1), METHODS[method]())
    assert not any(".adapters." in key for key in equal.state_dict())
    model = distill(tiny_fcos(), tiny_fcos(seed=1, channels=24), METHODS[method]())
    assert [tuple(a.weight.shape) for a in model.kd.feature.adapters] == [(24, 16, 1, 1)] * 3
    sum(distillation_losses(model, batch()).values()).backward()
    for adapter in model.kd.feature.adapters:
        assert adapter.weight.grad.abs().max() > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_resumes_the_run_and_loads_strictly_into_the_student(method: str):
    model = distill(tiny_fcos(), tiny_fcos(seed=1, channels=24), METHODS[method]())
    state = model.state_dict()
    student = {k: v for k, v in state.items() if not k.startswith("kd.feature.")}
    assert len(student) < len(state)
    tiny_fcos(seed=3).load_state_dict(student, strict=True)
    other = distill(tiny_fcos(seed=4), tiny_fcos(seed=1, channels=24), METHODS[method]())
    other.load_state_dict(state, strict=True)
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())
