"""Parameters, buffers and modules of a distiller are called as in its checkpoint: as the student's.

A recipe that goes by name (learning rates, frozen layers, averages) then does to the student in a
distiller what it does to the student alone."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
from detectron2.solver.build import get_default_optimizer_params
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dense_kd import BCKD, FGFI, MGD, Distiller, MethodSet, PseudoLabels, Teacher
from helpers.builders import (
    batch,
    tiny_atss,
    tiny_autoassign,
    tiny_ddod,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)

DETECTORS = [tiny_retinanet, tiny_fcos, tiny_atss, tiny_gfl, tiny_ddod, tiny_autoassign]


def distill(make=tiny_fcos, **options) -> Distiller:
    methods = MethodSet(mgd=MGD(), bckd=BCKD())
    return Distiller(
        student=make(), teacher=Teacher(make(seed=1), None), methods=methods, **options
    )


@pytest.mark.parametrize("init_student", [False, True])
@pytest.mark.parametrize("make", DETECTORS)
def test_parameters_and_buffers_are_called_as_in_the_checkpoint(make, init_student):
    model = distill(make, init_student=init_student)
    for prefix in ("", "module."):
        outer = nn.ModuleDict({"module": model}) if prefix else model
        state = outer.state_dict(keep_vars=True)
        named = dict(outer.named_parameters()) | dict(outer.named_buffers())
        for key, value in state.items():
            assert named[key] is value, key
        assert {name for name, _ in outer.named_parameters()} <= set(state)
        not_saved = {name for name in named if name not in state}
        assert not any(".student." in f".{name}" for name in named)
        assert {f"{prefix}pixel_mean", f"{prefix}loss_normalizer"} <= not_saved
    assert list(model.parameters()) == [p for _, p in model.named_parameters()]
    assert [*model.student.parameters(), *model.kd.parameters()] == list(model.parameters())


@pytest.mark.parametrize("make", DETECTORS)
def test_what_is_named_is_found_under_its_name(make):
    model = distill(make, init_student=True, pseudo_labels=PseudoLabels(score_thresh=0.4))
    for name, parameter in model.named_parameters():
        assert model.get_parameter(name) is parameter
    for name, buffer in model.named_buffers():
        assert model.get_buffer(name) is buffer
    assert "pseudo_labels.normalizer" in dict(model.named_buffers())
    with pytest.raises(AttributeError, match="nothing"):
        model.get_buffer("nothing")
    modules = list(model.named_modules())
    assert modules[0] == ("", model)
    assert len({id(module) for _, module in modules}) == len(modules) == len(list(model.modules()))
    assert {"backbone.bottom_up", "head.cls_score", "kd.mgd"} <= {name for name, _ in modules}
    for name, module in modules:
        assert model.get_submodule(name) is module or module is model.student


def test_rules_by_name_give_the_student_what_they_give_it_alone():
    def factor(name: str) -> float:
        return 0.1 if name.startswith("backbone.") else 1.0

    model = distill()
    rates = []
    for one in (model, model.student):
        if "lr_factor_func" in inspect.signature(get_default_optimizer_params).parameters:
            groups = get_default_optimizer_params(one, base_lr=0.01, lr_factor_func=factor)
            rates.append({id(p): group["lr"] for group in groups for p in group["params"]})
        else:
            rates.append({id(p): 0.01 * factor(name) for name, p in one.named_parameters()})
    in_distiller, alone = rates
    assert len(set(alone.values())) == 2
    assert alone.items() <= in_distiller.items()


def test_an_average_is_named_alike_and_detects():
    model = distill()
    average = AveragedModel(model, use_buffers=True)
    sum(model(batch()).values()).backward()
    average.update_parameters(model)
    names = {name.removeprefix("module.") for name, _ in average.named_parameters()}
    assert names == {name for name, _ in model.named_parameters()}
    state = {k.removeprefix("module."): v for k, v in average.state_dict().items()}
    state = {key: value for key, value in state.items() if not key.startswith("kd.")}
    state.pop("n_averaged")
    tiny_fcos(seed=3).load_state_dict(state, strict=True)
    assert len(average.eval()(batch())) == 2


def test_a_method_called_student_keeps_its_name_in_reports():
    methods = MethodSet(student=MGD())
    model = Distiller(
        student=tiny_fcos(), teacher=Teacher(tiny_fcos(seed=1), None), methods=methods
    )
    state = model.state_dict()
    key = next(key for key in state if key.startswith("kd.student."))
    state.pop(key)
    for outer, prefix in ((model, ""), (nn.Sequential(model), "0.")):
        loaded = outer.load_state_dict({prefix + k: v for k, v in state.items()}, strict=False)
        assert (loaded.missing_keys, loaded.unexpected_keys) == ([prefix + key], [])


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_a_distiller_of_its_own(twin):
    model = distill(init_student=True)
    model(batch())
    other = twin(model)
    assert list(other.state_dict()) == list(model.state_dict())
    assert not {id(p) for p in other.parameters()} & {id(p) for p in model.parameters()}
    for a, b in zip(other(batch()).values(), copy.deepcopy(model)(batch()).values()):
        assert a.isfinite() and (a.grad_fn is not None) == (b.grad_fn is not None)


def test_gradients_reach_what_a_loop_over_names_trains():
    model = distill()
    sum(model(batch()).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None or not parameter.requires_grad, name
    for name, parameter in model.named_parameters():
        if name.startswith("backbone.bottom_up"):
            parameter.requires_grad_(False)
    assert not any(p.requires_grad for p in model.student.backbone.bottom_up.parameters())


def test_a_warm_up_is_no_parameter_and_no_buffer():
    methods = MethodSet(fgfi=FGFI())
    model = Distiller(
        student=tiny_fcos(), teacher=Teacher(tiny_fcos(seed=1), None), methods=methods
    )
    assert "kd.iteration" in model.state_dict()
    assert "kd.iteration" not in dict(model.named_buffers())
    assert str(model.load_state_dict(model.state_dict())) == "<All keys matched successfully>"
