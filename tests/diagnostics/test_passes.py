"""The passes of a Distiller to look at: those of training, in eval mode and without a trace."""

from __future__ import annotations

import copy

import pytest
import torch

from dense_kd import BCKD, CrossKD, Distiller, MethodSet, Teacher
from dense_kd.diagnostics.methods_of_pair import method_of
from dense_kd.diagnostics.passes import image_of, run_passes, training_losses
from helpers.builders import batch, tiny_ddod, tiny_fcos, tiny_gfl, tiny_retinanet


def distiller(student=None, teacher=None, **methods) -> Distiller:
    student, teacher = student or tiny_fcos(), teacher or tiny_fcos(seed=1)
    methods = methods or {"bckd": BCKD()}
    return Distiller(student=student, teacher=Teacher(teacher, None), methods=MethodSet(**methods))


def test_passes_are_those_of_both_detectors_in_eval_mode_without_gradient():
    model = distiller(tiny_fcos(norm="BN"))
    inputs = batch()
    passes = run_passes(model, inputs)
    student = copy.deepcopy(model.student).eval()
    with torch.no_grad():
        ours = student.run(student.preprocess_image(inputs))
        theirs = model.teacher.model.run(model.teacher.model.preprocess_image(inputs))
        targets = student.targets(ours, student.ground_truth(inputs))
    for found, expected in ((passes.student, ours), (passes.teacher, theirs)):
        for a, b in zip(found.logits, expected.logits):
            assert torch.equal(a, b) and not a.requires_grad
    assert torch.equal(passes.targets.labels, targets.labels)
    assert passes.level_names == ["P3", "P4", "P5"] and passes.cross is None


def test_they_leave_the_model_as_it_was():
    model = distiller(tiny_fcos(norm="BN"), bckd=BCKD(warmup_iters=9))
    model.train()
    model.student.backbone.bottom_up.eval()  # as frozen parts are
    state = copy.deepcopy(model.state_dict())
    normalizer = model.student.loss_normalizer.clone()
    modes = [module.training for module in model.modules()]
    run_passes(model, batch(), method_of(model, CrossKD))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert torch.equal(model.student.loss_normalizer, normalizer)


def test_the_mode_comes_back_after_an_error():
    model = distiller()
    model.train()
    with pytest.raises(ValueError, match="expected a tensor"):
        run_passes(model, [{"image": None}])
    assert model.student.training


def test_of_equal_towers_the_cross_head_predicts_what_the_teacher_does():
    teacher = tiny_gfl(seed=1)
    model = distiller(copy.deepcopy(teacher), teacher)
    passes = run_passes(model, batch(), method_of(model, CrossKD))
    for cross, theirs in zip(passes.cross.logits, passes.teacher.logits):
        torch.testing.assert_close(cross, theirs, rtol=1e-3, atol=1e-4)
    ours = distiller(tiny_gfl(), teacher)
    passes = run_passes(ours, batch(), method_of(ours, CrossKD))
    assert not torch.allclose(passes.cross.logits[0], passes.teacher.logits[0], atol=1e-2)


def test_without_annotations_there_are_no_targets():
    inputs = batch()
    del inputs[1]["instances"]
    passes = run_passes(distiller(), inputs)
    assert passes.ground_truth is None and passes.targets is None


def test_an_image_without_objects_has_targets_and_none_of_them_is_positive():
    passes = run_passes(distiller(), batch("one empty"))
    assert len(passes.ground_truth[1]) == 0
    assert passes.targets.foreground.any(dim=1).tolist() == [True, False]


def test_targets_go_by_the_teacher_where_those_of_training_do():
    student, teacher = tiny_ddod(), tiny_ddod(seed=1)
    model = Distiller(
        student=student,
        teacher=Teacher(teacher, None),
        methods=MethodSet(bckd=BCKD()),
        targets_from_teacher=True,
    )
    found = run_passes(model, batch())
    student.eval()
    by_teacher, by_student = (
        student.targets(dense, found.ground_truth) for dense in (found.teacher, found.student)
    )
    assert torch.equal(found.targets.labels, by_teacher.labels)
    assert not torch.equal(found.targets.labels, by_student.labels)


def test_one_image_of_a_batch_has_all_that_the_batch_has():
    model = distiller(tiny_gfl(), tiny_gfl(seed=1))
    passes = run_passes(model, batch(), method_of(model, CrossKD))
    one = image_of(passes, 1)
    for name in ("student", "teacher", "cross"):
        whole, part = getattr(passes, name), getattr(one, name)
        assert part.image_sizes == [(80, 72)]
        for kind in ("features", "logits", "deltas", "boxes", "distribution"):
            for a, b in zip(getattr(whole, kind), getattr(part, kind)):
                assert torch.equal(a[1:], b)
    assert torch.equal(one.targets.labels, passes.targets.labels[1:])
    assert torch.equal(one.targets.foreground, passes.targets.foreground[1:])
    assert len(one.ground_truth) == 1 and one.ground_truth[0] is passes.ground_truth[1]
    bare = image_of(run_passes(distiller(tiny_retinanet(), tiny_retinanet(seed=1)),
                               [{"image": batch()[0]["image"]}]), 0)  # fmt: skip
    assert bare.targets is bare.ground_truth is bare.cross is None


def test_losses_to_look_at_are_those_of_a_step_after_the_warmup_and_leave_the_model_as_it_was():
    warm, usual = (distiller(tiny_fcos(norm="BN"), bckd=BCKD(warmup_iters=n)) for n in (9, 0))
    expected = copy.deepcopy(usual).train()(batch())
    warm.eval()
    state = copy.deepcopy(warm.state_dict())
    losses, student = training_losses(warm, batch())
    assert losses.keys() == expected.keys()
    assert all(torch.equal(losses[key], value) for key, value in expected.items())
    (gradient,) = torch.autograd.grad(losses["kd_bckd_loss_cls"], student.features[:1])
    assert gradient.abs().sum() > 0
    assert not warm.training and next(warm.kd.children()).warmup_iters == 9
    assert all(torch.equal(state[key], value) for key, value in warm.state_dict().items())


@pytest.mark.parametrize("look", [run_passes, training_losses])
def test_looking_lets_no_student_inherit_and_a_training_that_begins_then_does(look):
    model = Distiller(
        student=tiny_fcos(),
        teacher=Teacher(tiny_fcos(seed=1), None),
        methods=MethodSet(bckd=BCKD()),
        init_student=True,
    )
    average = copy.deepcopy(model)
    before = copy.deepcopy(model.state_dict())
    ours = run_passes(model, batch()).student.all_logits
    found = look(model, batch())
    student = found.student if look is run_passes else found[1]
    torch.testing.assert_close(student.all_logits, ours, rtol=1e-3, atol=1e-4)  # as it is
    for one in (model, average):
        assert all(torch.equal(before[key], value) for key, value in one.state_dict().items())
    model(batch())
    theirs = model.teacher.model.head.cls_score.weight
    assert all(torch.equal(one.student.head.cls_score.weight, theirs) for one in (model, average))


def test_looking_reads_the_files_of_the_teacher(tmp_path):
    path = str(tmp_path / "teacher.pth")
    torch.save(tiny_fcos(seed=1).state_dict(), path)
    model = Distiller(
        student=tiny_fcos(),
        teacher=Teacher(tiny_fcos(seed=2), path),
        methods=MethodSet(bckd=BCKD()),
        init_student=True,
    )
    training_losses(model, batch())
    expected = tiny_fcos(seed=1).head.cls_score.weight
    assert torch.equal(model.teacher.model.head.cls_score.weight, expected)
