"""What of the teacher is run, and how its maps lie in memory."""

from __future__ import annotations

import dataclasses
from unittest import mock

import pytest
import torch
from torch import nn

from dense_kd import BCKD, FGD, PKD, FitNet, MethodSet, Teacher
from helpers.builders import batch, tiny_ddod, tiny_fcos, tiny_gfl
from helpers.feature_cases import distill
from helpers.method_cases import VARIANTS, build, images_with

WITHOUT_PREDICTIONS = [
    (name, variant) for name, variant in VARIANTS if not build(name, variant).kd.reads_predictions
]
IMAGES = images_with([[4, 4, 40, 40]], [])


def calls(module: nn.Module, step) -> list[str]:
    """The names of the convolutions of ``module`` that ``step`` runs, in their order."""
    found: list[str] = []
    handles = [
        part.register_forward_hook(lambda *_, name=name: found.append(name))
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d)
    ]
    step()
    for handle in handles:
        handle.remove()
    return found


def test_methods_of_features_are_known_not_to_read_predictions():
    names = {name for name, _ in WITHOUT_PREDICTIONS}
    features = {"CanKD", "DeFeat", "FGD", "FGFI", "FKD", "FitNet", "MGD", "PKD"}
    assert names == {*features, "DSI", "FromTeacher"}  # which read no teacher of the Distiller


@pytest.mark.parametrize(("name", "variant"), WITHOUT_PREDICTIONS)
def test_losses_without_predictions_of_the_teacher_are_those_with_them(name, variant):
    model = build(name, variant)
    torch.manual_seed(0)
    found = model(IMAGES)
    with mock.patch.object(MethodSet, "reads_predictions", True):
        torch.manual_seed(0)
        expected = model(IMAGES)
    keys = [key for key in expected if key.startswith("kd_")]
    assert keys and all(torch.equal(found[key], expected[key]) for key in keys)


def test_the_head_is_run_for_methods_that_read_its_predictions_only():
    for method, runs in ((FGD(), False), (BCKD(), True)):
        model = distill(tiny_gfl(), tiny_gfl(seed=1), method)
        head = model.teacher.model.head
        assert bool(calls(head, lambda model=model: model(batch()))) == runs


def test_a_second_method_or_targets_of_the_teacher_ask_for_predictions_too():
    both = MethodSet(fgd=FGD(), bckd=BCKD())
    assert both.reads_predictions and not MethodSet(fgd=FGD()).reads_predictions
    model = distill(tiny_ddod(), tiny_ddod(seed=1), FGD())
    model.targets_from_teacher = True
    assert calls(model.teacher.model.head, lambda: model(batch()))


def test_towers_are_run_as_far_as_their_taps():
    model = distill(tiny_fcos(depth=3), tiny_fcos(depth=3, seed=1), PKD(taps=[("bbox", 2)]))
    levels = len(model.teacher.model.strides)
    ran = calls(model.teacher.model.head, lambda: model(batch()))
    assert len(ran) == 2 * levels and all(name.startswith("bbox_subnet") for name in ran)
    model = distill(tiny_fcos(), tiny_fcos(seed=1), PKD(taps=[("cls", 0)]))
    assert calls(model.teacher.model.head, lambda: model(batch())) == []


class Reader(FitNet):
    """Says that it reads no predictions, and does."""

    def forward(self, student, teacher, step):
        losses = super().forward(student, teacher, step)
        return {
            k: loss + sum(x.sum() for x in getattr(teacher, self.what))
            for k, loss in losses.items()
        }


@pytest.mark.parametrize("what", ["logits", "deltas", "quality", "distribution", "boxes"])
def test_a_method_that_reads_what_it_says_it_does_not_is_told_so(what):
    method = Reader()
    method.what = what
    with pytest.raises(LookupError, match=r"without predictions .*needs=Needs\(predictions=True\)"):
        distill(tiny_gfl(), tiny_gfl(seed=1), method)(batch())


def run(teacher: Teacher, student, inputs):
    return teacher.run(inputs, student.preprocess_image(inputs), student, [("cls", 1)])


def test_folded_norms_and_the_order_of_channels_leave_the_pass(caplog):
    student, inputs = tiny_fcos(), batch()
    expected = run(Teacher(tiny_fcos(norm="BN", seed=1), None), student, inputs)
    teacher = Teacher(tiny_fcos(norm="BN", seed=1), None, fold_norms=True, channels_last=True)
    with caplog.at_level("INFO", "dense_kd"):
        for _ in range(2):
            found = run(teacher, student, inputs)
    assert [r.message for r in caplog.records if "norms of the teacher" in r.message] != []
    assert caplog.text.count("norms of the teacher into their convolutions") == 1
    backbone = teacher.model.backbone
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    assert found.features[0].is_contiguous(memory_format=torch.channels_last)
    for name in (field.name for field in dataclasses.fields(found)):
        if name in ("features", "logits", "deltas", "quality"):
            for ours, theirs in zip(getattr(found, name), getattr(expected, name)):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    detected, as_before = (
        t.detect(inputs, "BGR")[0]["instances"].scores
        for t in (teacher, Teacher(tiny_fcos(norm="BN", seed=1), None))
    )
    torch.testing.assert_close(detected, as_before)


@pytest.mark.parametrize("option", ["fold_norms", "channels_last", "compile"])
def test_an_option_that_is_no_flag_says_what_is_expected(option):
    with pytest.raises(ValueError, match=f"{option}=.*True or False"):
        Teacher(tiny_fcos(), None, **{option: "false"})


@pytest.mark.slow
def test_a_compiled_backbone_leaves_the_pass_and_the_names_of_the_weights(monkeypatch):
    compiled = []

    def compile_without_a_compiler(module):
        compiled.append(module)
        module._compiled_call_impl = torch.compile(module._call_impl, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_without_a_compiler, raising=False)
    student, inputs = tiny_fcos(), batch()
    expected = run(Teacher(tiny_fcos(seed=1), None), student, inputs)
    teacher = Teacher(tiny_fcos(seed=1), None, compile=True)
    for _ in range(2):
        found = run(teacher, student, inputs)
    assert compiled == [teacher.model.backbone]
    assert teacher.model.state_dict().keys() == student.state_dict().keys()
    torch.testing.assert_close(found.logits, expected.logits)


def test_a_torch_that_compiles_no_module_is_named(monkeypatch):
    monkeypatch.delattr(nn.Module, "compile", raising=False)
    with pytest.raises(ValueError, match="compile=True needs torch 2.2 or newer, and this is"):
        Teacher(tiny_fcos(), None, compile=True)
