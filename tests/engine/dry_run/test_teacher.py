"""Which of the teacher's classes are the dataset's, and what it is shown."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances
from omegaconf import OmegaConf

from dense_kd import BCKD, PKD, Distiller, FromTeacher, MethodSet, Teacher
from dense_kd.engine.dry_run.teacher import teacher_score
from helpers.builders import tiny_fcos

CFG = OmegaConf.create({"train": {"device": "cpu"}, "dataloader": {"test": {}}})
IMAGE = {
    "annotations": [
        {"bbox": [4, 4, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0},
        {"bbox": [40, 8, 16, 30], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 2},
    ]
}


def ap(monkeypatch, *found: int, student=(), teacher=(), file=(), method=None, classes=(4, 4)):
    """AP of a teacher that finds both objects, of the classes ``found``."""
    model = Distiller(
        student=tiny_fcos(num_classes=classes[0]),
        teacher=Teacher(tiny_fcos(seed=1, num_classes=classes[1]), None),
        methods=MethodSet(method=method or PKD()),
    )
    model.student.class_names = list(student) or None
    model.teacher.model.class_names = list(teacher) or None
    model.teacher.file_classes = list(file) or None

    def detect(batch, input_format):
        assert input_format == model.student.input_format
        instances = Instances((64, 64))
        instances.pred_boxes = Boxes(torch.tensor([[4.0, 4, 24, 24], [40, 8, 56, 38]]))
        instances.scores = torch.tensor([0.9, 0.8])
        instances.pred_classes = torch.tensor(found)
        return [{"instances": instances}]

    monkeypatch.setattr(model.teacher, "detect", detect)
    score = teacher_score(CFG, model, "teacher", [[{}]], [IMAGE])
    assert score.ap50_any_class == pytest.approx(100)
    return score.ap


def test_equally_many_classes_are_the_same_in_their_order(monkeypatch):
    assert ap(monkeypatch, 0, 2) == pytest.approx(100)
    assert ap(monkeypatch, 0, 1) == pytest.approx(50)


def test_other_classes_are_the_same_by_their_names(monkeypatch):
    names = {"student": ["a b", "c", "d", "e"], "classes": (4, 3)}
    assert ap(monkeypatch, 2, 0, teacher=["D", "x", "A_b"], **names) == pytest.approx(100)
    assert ap(monkeypatch, 2, 0, file=["D", "x", "A_b"], **names) == pytest.approx(100)
    assert ap(monkeypatch, 1, 0, file=["D", "x", "A_b"], **names) == pytest.approx(50)
    assert ap(monkeypatch, 1, 0, **names) is None


def test_the_class_map_of_a_method_tells_which_are_the_same(monkeypatch):
    method = BCKD(class_map={5: 0, 3: 2}, loc_weight=0)
    assert ap(monkeypatch, 5, 3, method=method, classes=(4, 6)) == pytest.approx(100)


def test_a_teacher_that_a_method_brings_along_has_its_own_class_map(monkeypatch):
    inside = BCKD(class_map={0: 2, 2: 0})
    own = Teacher(tiny_fcos(seed=2, num_classes=4), None)
    brought = FromTeacher(teacher=own, method=inside)
    model = Distiller(
        student=tiny_fcos(num_classes=4),
        teacher=Teacher(tiny_fcos(seed=1, num_classes=4), None),
        methods=MethodSet(pkd=PKD(), other=brought),
    )
    instances = Instances((64, 64))
    instances.pred_boxes = Boxes(torch.tensor([[4.0, 4, 24, 24], [40, 8, 56, 38]]))
    instances.scores = torch.tensor([0.9, 0.8])
    instances.pred_classes = torch.tensor([2, 0])
    for teacher in model.teachers.values():
        monkeypatch.setattr(teacher, "detect", lambda *_: [{"instances": instances}])
    found = {p: teacher_score(CFG, model, p, [[{}]], [IMAGE]).ap50 for p in model.teachers}
    assert found == pytest.approx({"teacher": 0, "methods.other.teacher": 100})
