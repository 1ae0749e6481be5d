"""Inheriting: what a student takes over from its teacher, when, and what is said about it."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dense_kd import (
    BCKD,
    CrossKD,
    DistillationError,
    Distiller,
    MethodSet,
    PseudoLabels,
    Teacher,
)
from dense_kd.inheritance import OF_CLASSES, inherit, inherited_state
from dense_kd.methods import KDMethod
from dense_kd.pairs import check_inheritable
from helpers.builders import (
    batch,
    tiny_atss,
    tiny_autoassign,
    tiny_ddod,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)


class FeatureMSE(KDMethod):
    """Runs between any two detectors with equal pyramids."""

    def forward(self, student, teacher, step):
        pairs = zip(student.features, teacher.features)
        return {"loss_feature": sum((s - t).square().mean() for s, t in pairs)}


def build(student: nn.Module, teacher: nn.Module, **options) -> Distiller:
    methods = MethodSet(mse=FeatureMSE())
    options = {"init_student": True, **options}
    return Distiller(student=student, teacher=Teacher(teacher, None), methods=methods, **options)


def is_fpn_or_head(key: str) -> bool:
    return key.startswith("head.") or not key.startswith("backbone.bottom_up.")


@pytest.mark.parametrize("make", [tiny_retinanet, tiny_fcos, tiny_atss, tiny_gfl])
def test_fpn_and_head_become_the_teachers_and_the_backbone_stays(make):
    student, teacher = make(seed=0, num_levels=5), make(seed=1, num_levels=5)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    model = build(student, teacher)
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())
    model.prepare_training()
    after, source = student.state_dict(), teacher.state_dict()
    copied = [key for key in after if torch.equal(after[key], source[key])]
    kept = [key for key in after if torch.equal(after[key], before[key])]
    anchors = {key for key in after if "cell_anchors" in key}
    assert {key for key in copied if key.endswith("weight")} >= {
        "backbone.fpn_lateral3.weight",
        "backbone.fpn_output5.weight",
        "backbone.top_block.p6.weight",
        "head.cls_subnet.0.weight",
        "head.cls_score.weight",
        "head.bbox_pred.weight",
    }
    assert set(copied) == {k for k in after if is_fpn_or_head(k)} | anchors
    assert set(kept) == {k for k in after if not is_fpn_or_head(k)} | anchors


def test_what_does_not_fit_is_left_as_it_was_and_reported():
    # A wider backbone: other inputs of the laterals; more classes: another class prediction.
    student, teacher = tiny_fcos(), tiny_fcos(seed=1, width=16, num_classes=7)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    result = inherit(student, teacher)
    assert result.of_another_shape == {
        "backbone.fpn_lateral3.weight": ((16, 16, 1, 1), (16, 32, 1, 1)),
        "backbone.fpn_lateral4.weight": ((16, 32, 1, 1), (16, 64, 1, 1)),
        "backbone.fpn_lateral5.weight": ((16, 64, 1, 1), (16, 128, 1, 1)),
        "head.cls_score.weight": ((4, 16, 3, 3), (7, 16, 3, 3)),
        "head.cls_score.bias": ((4,), (7,)),
    }
    assert result.only_in_student == result.only_in_teacher == []
    state = student.state_dict()
    assert all(torch.equal(state[key], before[key]) for key in result.of_another_shape)
    assert all(torch.equal(state[key], teacher.state_dict()[key]) for key in result.copied)
    assert result.num_elements == sum(state[key].numel() for key in result.copied)
    lines = result.report().splitlines()
    (line,) = [line for line in lines if "head.cls_score.weight" in line]
    assert "(4, 16, 3, 3) in the student, (7, 16, 3, 3) in the teacher" in line
    assert line.endswith("NOT copied")
    (line,) = [line for line in lines if line.startswith("head.cls_subnet")]
    assert "tensors" in line and "NOT" not in line


def test_heads_of_different_detectors_share_what_has_one_name_and_shape():
    student, teacher = tiny_gfl(), tiny_fcos(seed=1)
    result = inherit(student, teacher)
    assert "head.cls_score.weight" in result.copied
    assert list(result.of_another_shape) == ["head.bbox_pred.weight", "head.bbox_pred.bias"]
    assert "head.scales.0.scale" in result.only_in_student
    assert {"head.ctrness.weight", "head.ctrness.bias"} <= set(result.only_in_teacher)
    report = result.report()
    assert "only in the student" in report and "only in the teacher" in report


@pytest.mark.parametrize(
    "make", [tiny_retinanet, tiny_fcos, tiny_atss, tiny_gfl, tiny_ddod, tiny_autoassign]
)
def test_what_has_rows_for_classes_is_known_of_every_detector(make):
    few, many = (inherited_state(make(num_classes=number)) for number in (4, 7))
    of_classes = {key for key in few if few[key].shape != many[key].shape}
    assert of_classes == {key for key in few if key.startswith(OF_CLASSES)} != set()


REVERSED = {0: 3, 1: 2, 2: 1, 3: 0}


@pytest.mark.parametrize(
    ("names", "methods", "pseudo_labels"),
    [
        ("abcd", lambda: {"bckd": BCKD(class_map="by_name")}, None),
        ("abcd", lambda: {"mse": FeatureMSE()}, None),
        ("", lambda: {"bckd": BCKD(class_map=REVERSED)}, None),
        ("", lambda: {"mse": FeatureMSE(), "bckd": BCKD(class_map={0: 0, 1: 1})}, None),
        ("", lambda: {"cross": CrossKD(depth=1)}, REVERSED),
    ],
)
def test_predictions_of_classes_in_another_order_stay_the_students(
    names, methods, pseudo_labels, caplog
):
    student = tiny_autoassign(class_names=[*names] or None)
    teacher = tiny_autoassign(seed=1, class_names=[*names[::-1]] or None)
    before = copy.deepcopy(student.state_dict())
    labels = pseudo_labels and PseudoLabels(score_thresh=0.4, class_map=pseudo_labels)
    model = Distiller(
        student=student,
        teacher=Teacher(teacher, None),
        methods=MethodSet(**methods()),
        init_student=True,
        pseudo_labels=labels,
    )
    caplog.set_level(logging.INFO, "dense_kd.distiller")
    model.prepare_training()
    after, source = student.state_dict(), teacher.state_dict()
    for key in after:
        if key.startswith("head."):
            expected = before if key.startswith(OF_CLASSES) else source
            assert torch.equal(after[key], expected[key]), key
    (line,) = [x for x in caplog.text.splitlines() if x.startswith("head.cls_score.weight")]
    assert "of other classes" in line and line.endswith("NOT copied")


def test_a_student_that_could_inherit_predictions_of_other_classes_alone_is_refused():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.ModuleDict({"cls_score": nn.Conv2d(8, 4, 3)})

    check_inheritable(Bare(), Bare(), same_classes=True)
    with pytest.raises(DistillationError, match="no convolution in the FPN or head"):
        check_inheritable(Bare(), Bare(), same_classes=False)


def test_the_first_training_step_inherits_and_says_so_and_later_ones_do_not(caplog):
    model = build(tiny_atss(), tiny_atss(seed=1))
    caplog.set_level(logging.INFO, "dense_kd.distiller")
    losses = model(batch())
    assert losses["kd_mse_loss_feature"] > 0  # the backbones differ
    state = model.teacher.model.state_dict()
    ours = model.student.head.state_dict()
    assert all(torch.equal(value, state[f"head.{key}"]) for key, value in ours.items())
    assert caplog.text.count("The student inherits") == 1
    assert "head.cls_score" in caplog.text
    with torch.no_grad():
        model.student.head.cls_score.weight.fill_(0.5)
    model(batch())
    assert (model.student.head.cls_score.weight == 0.5).all()


def test_evaluation_alone_inherits_nothing():
    student = tiny_fcos()
    before = {key: value.clone() for key, value in student.state_dict().items()}
    build(student, tiny_fcos(seed=1)).eval()(batch())
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())


def test_a_resumed_run_keeps_what_it_has_learnt(tmp_path, caplog):
    model = build(tiny_fcos(), tiny_fcos(seed=1))
    model.prepare_training()
    with torch.no_grad():
        model.student.head.cls_score.weight.fill_(0.5)
    DetectionCheckpointer(model, str(tmp_path)).save("model")

    resumed = build(tiny_fcos(seed=2), tiny_fcos(seed=1))
    assert not resumed.kd.student_initialized
    DetectionCheckpointer(resumed, str(tmp_path)).resume_or_load("", resume=True)
    caplog.set_level(logging.INFO, "dense_kd.distiller")
    resumed(batch())
    assert (resumed.student.head.cls_score.weight == 0.5).all()
    assert "has inherited FPN and head before" in caplog.text


_REPLACED = "those of FPN and head are replaced by the teacher's. To go on from them, give"


@pytest.mark.parametrize("part", ["", "backbone.bottom_up."])
def test_weights_to_start_from_are_overwritten_by_the_inherited_ones_which_is_said(
    tmp_path, caplog, part
):
    given = {k: v for k, v in tiny_fcos(seed=5).state_dict().items() if k.startswith(part)}
    torch.save({"model": given}, tmp_path / "start.pth")
    model = build(tiny_fcos(), tiny_fcos(seed=1))
    DetectionCheckpointer(model).load(str(tmp_path / "start.pth"))
    model.prepare_training()
    assert (_REPLACED in caplog.text) == (part == "")
    state = model.student.state_dict()
    for key, value in tiny_fcos(seed=5).state_dict().items():
        if key.startswith("backbone.bottom_up."):
            assert torch.equal(state[key], value), key
    assert torch.equal(state["head.cls_score.bias"], tiny_fcos(seed=1).head.cls_score.bias)


def test_its_checkpoint_loads_strictly_into_the_bare_student():
    model = build(tiny_fcos(), tiny_fcos(seed=1))
    model(batch())
    state = model.state_dict()
    assert state.pop("kd.student_initialized")
    tiny_fcos(seed=3).load_state_dict(state, strict=True)


def test_without_the_option_nothing_is_inherited_and_nothing_more_is_saved():
    student = tiny_fcos()
    model = Distiller(
        student=student, teacher=Teacher(tiny_fcos(seed=1), None), methods=MethodSet(bckd=BCKD())
    )
    model(batch())
    assert not torch.equal(student.head.cls_score.weight, tiny_fcos(seed=1).head.cls_score.weight)
    assert set(model.state_dict()) == set(student.state_dict())


def test_a_teacher_that_has_nothing_to_inherit_is_refused_when_the_model_is_built():
    with pytest.raises(DistillationError, match="init_student=True(.|\n)*FCOS(.|\n)*same width"):
        build(tiny_fcos(), tiny_fcos(seed=1, channels=24, num_classes=3))


def head_of(model: Distiller) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.student.state_dict().items() if k.startswith("head.")}


def is_inherited(model: Distiller) -> bool:
    source = model.teacher.model.state_dict()
    same = all(torch.equal(value, source[key]) for key, value in head_of(model).items())
    assert same == bool(model.kd.student_initialized)
    return same


def test_copies_that_were_made_before_inherit_with_the_first_of_them(tmp_path):
    # The teacher comes from a file, which a copy does not need.
    path = str(tmp_path / "teacher.pth")
    torch.save(tiny_fcos(seed=1).state_dict(), path)
    model = Distiller(
        student=tiny_fcos(),
        teacher=Teacher(tiny_fcos(seed=2), path),
        methods=MethodSet(bckd=BCKD()),
        init_student=True,
    )
    average = AveragedModel(model)
    twin = copy.deepcopy(model).eval()
    of_twin = copy.deepcopy(twin)
    other = build(tiny_fcos(), tiny_fcos(seed=1))
    assert not model.teacher.loaded
    model(batch())
    for one in (model, average.module, twin, of_twin):
        assert is_inherited(one)
    assert not is_inherited(other)
    with torch.no_grad():
        model.student.head.cls_score.weight.fill_(0.5)
    assert not any((m.student.head.cls_score.weight == 0.5).any() for m in (twin, of_twin))


def test_a_copy_of_a_model_that_has_inherited_is_left_alone():
    model = build(tiny_fcos(), tiny_fcos(seed=1))
    model.prepare_training()
    with torch.no_grad():
        model.student.head.cls_score.weight.fill_(0.5)
    twin = copy.deepcopy(model)
    twin.prepare_training()
    assert (twin.student.head.cls_score.weight == 0.5).all()


def test_a_copy_that_trains_first_does_not_keep_the_others_from_inheriting_later():
    model = build(tiny_fcos(), tiny_fcos(seed=1))
    twin = copy.deepcopy(model)
    twin(batch())
    assert is_inherited(model)
    # Now the weights to start from, as train.init_checkpoint.
    model.load_state_dict(tiny_fcos(seed=5).state_dict(), strict=False)
    assert not is_inherited(model)
    model(batch())
    assert is_inherited(model)


def test_weights_that_are_loaded_amid_a_run_stay():
    model = build(tiny_fcos(), tiny_fcos(seed=1))
    model(batch())
    model.load_state_dict(tiny_fcos(seed=5).state_dict(), strict=False)
    model(batch())
    expected = tiny_fcos(seed=5).head.cls_score.weight
    assert torch.equal(model.student.head.cls_score.weight, expected)


def test_a_model_from_a_pickle_inherits_by_itself():
    model = build(tiny_fcos(), tiny_fcos(seed=1))
    other = pickle.loads(pickle.dumps(model))
    model(batch())
    assert not is_inherited(other)
    other(batch())
    assert is_inherited(other)


def test_copies_do_not_outlive_their_owners():
    model = build(tiny_fcos(), tiny_fcos(seed=1))
    twin = copy.deepcopy(model)
    assert set(model._copies) == {model, twin}
    del twin
    assert set(model._copies) == {model}


def test_training_says_that_no_file_of_the_teacher_is_read(caplog):
    caplog.set_level(logging.INFO, "dense_kd.distiller")
    model = build(tiny_fcos(), tiny_fcos(seed=1), init_student=False)
    model.eval()(batch())
    assert "weights=None" not in caplog.text
    model.train()
    for _ in range(2):
        model(batch())
    assert caplog.text.count("weights=None, so no file is read") == 1


def with_a_norm_in_the_pyramid(model: nn.Module) -> nn.Module:
    conv = model.backbone.fpn_output3
    conv.norm = nn.BatchNorm2d(conv.out_channels)
    return model


def test_a_teacher_that_has_folded_its_norms_is_not_inherited_from_without_them():
    model = with_a_norm_in_the_pyramid(tiny_fcos(seed=1))
    teacher = Teacher(model, None, fold_norms=True)
    early, late = (
        Distiller(
            student=with_a_norm_in_the_pyramid(tiny_fcos(seed=seed)),
            teacher=teacher,
            methods=MethodSet(mse=FeatureMSE()),
            init_student=True,
        )
        for seed in (2, 3)
    )
    early(batch())
    with pytest.raises(DistillationError, match="folded norms into 1 convolutions .*fpn_output3"):
        late.prepare_training()
