"""Which method compares a pair: the run's own, or one with default options."""

from __future__ import annotations

import pytest
import torch

from dense_kd import BCKD, PGD, TID, CrossKD, Distiller, MethodSet, Teacher
from dense_kd.diagnostics.errors import DiagnosticsError
from dense_kd.diagnostics.methods_of_pair import class_correspondence, method_of
from helpers.builders import tiny_fcos, tiny_retinanet

CLASSES = ["a", "b", "c", "d"]


def distiller(student=None, teacher=None, **methods) -> Distiller:
    student, teacher = student or tiny_fcos(), teacher or tiny_fcos(seed=1)
    methods = methods or {"pgd": PGD()}
    return Distiller(student=student, teacher=Teacher(teacher, None), methods=MethodSet(**methods))


def test_the_method_of_the_run_comes_first():
    model = distiller(one=TID(gamma=0.5), other=TID(), cross=CrossKD(depth=1))
    assert method_of(model, TID) is model.kd.one
    assert method_of(model, CrossKD) is model.kd.cross


def test_otherwise_it_has_default_options_and_fits_the_pair():
    model, before = distiller(), torch.random.get_rng_state()
    assert method_of(model, BCKD).loc_weight == BCKD().loc_weight
    assert method_of(model, TID).gamma == TID().gamma
    assert method_of(model, CrossKD).depth == {"cls": 2, "bbox": 2}  # as long as the towers
    assert torch.equal(torch.random.get_rng_state(), before)


def test_classes_correspond_as_in_the_run_or_by_name():
    student = tiny_fcos(class_names=CLASSES)
    teacher = tiny_fcos(seed=1, num_classes=3, class_names=["c", "x", "a"])
    model = distiller(student, teacher, pgd=PGD(class_map={"c": "b"}))
    assert class_correspondence(model) == [(1, 0)]
    assert method_of(model, BCKD).teacher_classes.tolist() == [0]
    model = distiller(student, teacher, cross=CrossKD(depth=1))
    assert class_correspondence(model) == [(0, 2), (2, 0)]
    assert method_of(model, BCKD).student_classes.tolist() == [0, 2]
    assert class_correspondence(distiller()) is None


def test_a_pair_that_cannot_be_compared_is_refused_with_what_is_in_the_way():
    model = distiller(tiny_fcos(num_classes=3), cross=CrossKD(depth=1))
    with pytest.raises(DiagnosticsError, match="BCKD cannot compare .* num_classes=3 .* 4; give"):
        method_of(model, BCKD)
    with pytest.raises(DiagnosticsError, match="which classes correspond is not known"):
        class_correspondence(model)
    model = distiller(tiny_retinanet())
    with pytest.raises(DiagnosticsError, match="BCKD cannot compare the teacher FCOS with the st"):
        method_of(model, BCKD)


def test_towers_of_unequal_width_need_a_run_that_has_trained_what_is_between_them():
    pair = (tiny_fcos(channels=8), tiny_fcos(seed=1))
    with pytest.raises(DiagnosticsError, match="8 channels and the teacher's 16, .* with CrossKD"):
        method_of(distiller(*pair), CrossKD)
    model = distiller(*pair, cross=CrossKD(depth=1))
    assert method_of(model, CrossKD) is model.kd.cross
