"""Which parameters are in which group of an optimizer."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.solver.build import get_default_optimizer_params
from omegaconf import OmegaConf
from torch import nn

from dense_kd import FGD, MGD, Distiller, MethodSet, Teacher, get_config
from dense_kd.detectors import FrozenStatisticsBatchNorm
from dense_kd.engine.building import build_optimizer
from dense_kd.engine.optimizer import layer_bias_params
from dense_kd.engine.state.resuming import hyperparameters, keep_hyperparameters
from helpers.builders import tiny_fcos
from helpers.torch_features import has_fused_adamw

NORMS = {
    "GN": "GN",
    "BN": "BN",
    "fixed statistics": FrozenStatisticsBatchNorm,
    "LN": lambda channels: nn.LayerNorm([channels, 1, 1]),
}


def groups_of(model: nn.Module) -> dict[str, tuple[float, float]]:
    """{name of a parameter: (learning rate, weight decay)} in mmdetection's recipe for FCOS."""
    config = get_config("fcos/mmdet_r50_1x.py").optimizer
    config.params.model = model
    optimizer = instantiate(config)
    groups = {p: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    return {name: groups[p] for name, p in model.named_parameters() if p in groups}


def layers_and_norms(model: nn.Module) -> tuple[set[str], set[str]]:
    """Names of the biases of convolutions and linear layers, and of all parameters of norms."""
    biases, norms = set(), set()
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            biases.add(f"{name}.bias")
        elif "Norm" in type(module).__name__:
            norms |= {f"{name}.{key}" for key, _ in module.named_parameters(recurse=False)}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    return biases & trained, norms & trained


def expect_fcos_groups(model: nn.Module) -> None:
    biases, norms = layers_and_norms(model)
    groups = groups_of(model)
    assert set(groups) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert biases and norms and not biases & norms
    for name, group in groups.items():
        assert group == ((0.02, 0.0) if name in biases else (0.01, 1e-4)), name


@pytest.mark.parametrize("name", ["mmdet_r50_1x", "mmdet_tricks_r50_1x", "mmdet_r50_2x_ms"])
def test_only_biases_of_layers_learn_faster_in_fcos_of_mmdetection(name: str):
    config = get_config(f"fcos/{name}.py")
    assert config.optimizer.params._target_ in (layer_bias_params, "layer_bias_params")
    with torch.device("meta"):
        model = instantiate(config.model)
    expect_fcos_groups(model)


@pytest.mark.parametrize("norm", NORMS)
def test_norms_of_every_kind_learn_and_decay_as_weights(norm: str):
    expect_fcos_groups(tiny_fcos(norm=NORMS[norm], channels=32))


def test_a_distiller_has_the_groups_of_its_student_and_those_of_its_methods():
    student = tiny_fcos(norm="GN", channels=32)
    teacher = Teacher(tiny_fcos(seed=1, channels=16), None)
    model = Distiller(student=student, teacher=teacher, methods=MethodSet(fgd=FGD(), mgd=MGD()))
    expect_fcos_groups(model)
    groups, alone = groups_of(model), groups_of(student)
    of_student = {p: group for p, group in zip(student.parameters(), alone.values())}
    assert of_student == {
        p: groups[name] for name, p in model.named_parameters() if p in of_student
    }
    assert any(group == (0.02, 0.0) for name, group in groups.items() if "kd." in name)


def test_what_is_not_trained_is_in_no_group_and_no_group_is_empty():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.GroupNorm(1, 1))
    model[0].requires_grad_(False)
    options = {"base_lr": 1.0, "bias_lr_factor": 2.0, "weight_decay_bias": 0.0}
    assert layer_bias_params(model, **options) == [
        {"params": list(model[1].parameters()), "lr": 1.0}
    ]


def optimizer_of(optimizer: object, **train: object) -> torch.optim.Optimizer:
    """Of a small model, as a run builds it."""
    cfg = OmegaConf.create({"train": {"device": "cpu", **train}}, flags={"allow_objects": True})
    cfg.optimizer = optimizer
    return build_optimizer(cfg, nn.Linear(2, 2))


@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_step_on_a_cpu_is_done_in_one_pass_where_torch_can(cls: type):
    params = L(get_default_optimizer_params)()
    group, *_ = optimizer_of(L(cls)(params=params, lr=0.1)).param_groups
    assert group.get("fused") == (True if has_fused_adamw() else None)
    group, *_ = optimizer_of(L(cls)(params=params, lr=0.1, foreach=False)).param_groups
    assert not group.get("fused")
    group, *_ = optimizer_of(L(cls)(params=params, lr=0.1), device="meta").param_groups
    assert not group.get("fused")


def test_another_optimizer_is_built_as_it_is_described():
    params = L(get_default_optimizer_params)()
    assert isinstance(optimizer_of(L(torch.optim.NAdam)(params=params)), torch.optim.NAdam)


def test_how_a_step_is_computed_is_no_hyperparameter_that_a_resumed_run_speaks_of(caplog):
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=0.1, foreach=False)
    before = hyperparameters(optimizer)
    optimizer.param_groups[0]["foreach"] = True  # as of a checkpoint of another machine
    keep_hyperparameters(optimizer, before)
    assert optimizer.param_groups[0]["foreach"] is False and not caplog.records
