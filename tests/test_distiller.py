"""The distiller as a model: what it holds, what it saves, what it is in eval mode."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils.events import EventStorage
from torch import nn

from dense_kd import BCKD, PGD, DistillationError, Distiller, MethodSet, Teacher
from helpers.builders import (
    CASES,
    batch,
    retinanet_config,
    tiny_atss,
    tiny_autoassign,
    tiny_ddod,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)

DETECTORS = [tiny_retinanet, tiny_fcos, tiny_atss, tiny_gfl, tiny_autoassign]


def build(make=tiny_retinanet, **teacher_options) -> Distiller:
    teacher = Teacher(make(seed=1, **teacher_options), None)
    return Distiller(student=make(), teacher=teacher, methods=MethodSet(bckd=BCKD()))


def test_the_teacher_is_in_no_state_dict_parameter_list_or_optimizer():
    distiller = build()
    of_teacher = {id(p) for p in distiller.teacher.model.parameters()}
    assert not of_teacher & {id(p) for p in distiller.parameters()}
    assert not of_teacher & {id(b) for b in distiller.buffers()}
    groups = get_default_optimizer_params(distiller)
    assert not of_teacher & {id(p) for group in groups for p in group["params"]}
    assert set(distiller.state_dict()) == set(distiller.student.state_dict())
    assert not any(isinstance(m, type(distiller.teacher)) for m in distiller.modules())


@pytest.mark.parametrize("make", DETECTORS)
def test_training_leaves_the_teacher_bit_identical(make):
    distiller = build(make)
    teacher = distiller.teacher.model
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD(get_default_optimizer_params(distiller), lr=0.01)
    student_before = copy.deepcopy(distiller.student.state_dict())
    for case in (*CASES, "usual"):
        optimizer.zero_grad()
        sum(distiller(batch(case)).values()).backward()
        optimizer.step()
    after = teacher.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not teacher.training
    student = distiller.state_dict()
    changed = [key for key in student if not torch.equal(student[key], student_before[key])]
    assert len(changed) > 20


def test_in_eval_mode_it_is_the_student_and_asks_no_teacher():
    distiller = build()
    distiller.teacher.loaded = False
    distiller.teacher.weights = "a file of another machine.pth"
    distiller.eval()
    inputs = batch()
    with torch.no_grad():
        ours, students = distiller(inputs), distiller.student(inputs)
    for a, b in zip(ours, students):
        assert torch.equal(a["instances"].scores, b["instances"].scores)
        assert len(a["instances"]) > 0


def test_its_checkpoint_loads_strictly_into_the_student_and_into_detectron2s_retinanet(tmp_path):
    distiller = build()
    DetectionCheckpointer(distiller, str(tmp_path)).save("model")
    saved = torch.load(tmp_path / "model.pth", weights_only=True)["model"]
    stock = instantiate(retinanet_config())
    bare = tiny_retinanet(seed=5)
    for model in (stock, bare):
        assert str(model.load_state_dict(saved, strict=True)) == "<All keys matched successfully>"
    inputs = batch()
    with torch.no_grad():
        detections = [m.eval()(inputs)[0]["instances"] for m in (distiller, stock, bare)]
    for other in detections[1:]:
        torch.testing.assert_close(detections[0].scores, other.scores)


def test_loading_its_own_state_restores_student_and_methods():
    a, b = build(), build()
    with torch.no_grad():
        for parameter in a.parameters():
            parameter.add_(1.0)
    b.load_state_dict(a.state_dict())
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_missing_and_unexpected_keys_are_reported_by_their_flat_names():
    distiller = build()
    state = distiller.state_dict()
    del state["head.cls_score.bias"]
    state["head.other.bias"] = torch.zeros(1)
    missing, unexpected = distiller.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["head.cls_score.bias"], ["head.other.bias"])
    with pytest.raises(RuntimeError, match='"head.cls_score.bias"'):
        distiller.load_state_dict(state)


def test_its_state_dict_is_flat_inside_another_module_too():
    distiller = build()
    outer = nn.Sequential(distiller)
    state = outer.state_dict()
    assert set(state) == {f"0.{key}" for key in distiller.student.state_dict()}
    assert str(outer.load_state_dict(state)) == "<All keys matched successfully>"


def test_a_shape_that_differs_is_left_out_with_detectron2s_own_message(tmp_path, caplog):
    torch.save({"model": {"head.cls_score.bias": torch.zeros(3)}}, tmp_path / "model.pth")
    DetectionCheckpointer(build()).load(str(tmp_path / "model.pth"))
    assert "head.cls_score.bias" in caplog.text


def test_a_deep_copy_shares_the_teacher():
    distiller = build()
    twin = copy.deepcopy(distiller)
    assert twin.teacher is distiller.teacher
    assert twin.student is not distiller.student


def test_it_gives_the_students_own_losses_and_those_of_the_methods():
    distiller, alone = build(), tiny_retinanet()
    with EventStorage():
        losses, own = distiller(batch()), alone(batch())
    assert set(losses) == {*own, "kd_bckd_loss_cls", "kd_bckd_loss_loc"}
    for name, value in own.items():
        torch.testing.assert_close(losses[name], value)


def test_attributes_of_the_student_are_reached_through_it():
    distiller = build()
    assert distiller.num_classes == 4
    assert distiller.backbone is distiller.student.backbone
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        distiller.nothing_of_this_name  # noqa: B018


@pytest.mark.parametrize("part", ["student", "teacher", "methods"])
def test_a_part_of_the_wrong_kind_is_refused_by_name(part):
    parts = {
        "student": tiny_retinanet(),
        "teacher": Teacher(tiny_retinanet(), None),
        "methods": MethodSet(bckd=BCKD()),
    }
    parts[part] = nn.Identity()
    with pytest.raises(TypeError, match=f"{part} is a .*Identity"):
        Distiller(**parts)


@pytest.mark.parametrize("case", CASES)
def test_a_batch_with_empty_images_trains_without_nan(case):
    for make in DETECTORS:
        distiller = build(make)
        losses = distiller(batch(case))
        sum(losses.values()).backward()
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in distiller.parameters())
        # DistributedDataParallel without find_unused_parameters needs every gradient.
        assert all(p.grad is not None for p in distiller.parameters() if p.requires_grad)


def of_targets_from_teacher(student, teacher) -> Distiller:
    return Distiller(
        student=student,
        teacher=Teacher(teacher, None),
        methods=MethodSet(pgd=PGD()),
        targets_from_teacher=True,
    )


@pytest.mark.parametrize("teacher", [tiny_ddod, tiny_gfl])
def test_the_students_targets_may_go_by_the_teachers_predictions(teacher):
    own = tiny_ddod()(batch())
    model = of_targets_from_teacher(tiny_ddod(), teacher(seed=1))
    losses = model(batch())
    student = tiny_ddod()
    images = student.preprocess_image(batch())
    truth = student.ground_truth(batch())
    by_teacher = student.targets(model.teacher.model.run(images), truth)
    expected = student.losses(student.run(images), by_teacher)
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss)
        assert loss != own[name]
    assert torch.equal(model.student.level_positives, student.level_positives)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "student, teacher, message",
    [
        (tiny_atss, tiny_atss, "ATSS does not go by predictions"),
        (tiny_ddod, tiny_fcos, "targets_from_teacher=True: .* the anchors differ"),
        (tiny_ddod, lambda: tiny_ddod(class_names=list("abcd")), "needs equal classes"),
    ],
)
def test_targets_that_the_teacher_cannot_give_are_refused(student, teacher, message):
    with pytest.raises(DistillationError, match=message):
        of_targets_from_teacher(student(), teacher())
