"""Comparing class scores of detectors whose classes differ."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate

from dense_kd import BCKD, DistillationError
from dense_kd.methods.base.class_maps import class_pairs, correspondence, counterparts
from helpers.builders import assert_close, batch, tiny_fcos
from helpers.feature_cases import distill

NAMES = ["cat", "dog", "car", "bus"]
OTHERS = ["bus", "tree", "cat", "sky", "dog"]  # no car


def pair(**teacher):
    student = tiny_fcos(class_names=NAMES)
    return student, tiny_fcos(seed=1, num_classes=5, class_names=OTHERS, **teacher)


def test_classes_of_equal_name_correspond():
    assert class_pairs("by_name", *pair()) == [(0, 2), (1, 4), (3, 0)]


@pytest.mark.parametrize(
    "class_map", [{"sky": "car", "cat": "dog"}, {3: 2, 2: 1}, {"sky": 2, 2: "dog"}]
)
def test_a_mapping_goes_from_the_teachers_class_to_the_students(class_map):
    assert class_pairs(class_map, *pair()) == [(1, 2), (2, 3)]


def test_equal_classes_need_no_map():
    student, teacher = tiny_fcos(class_names=NAMES), tiny_fcos(class_names=NAMES)
    for class_map in (None, "by_name", {i: i for i in range(4)}, {n: n for n in NAMES}):
        assert class_pairs(class_map, student, teacher) is None
    assert class_pairs(None, tiny_fcos(), teacher) is None  # the names of one are unknown
    shuffled = tiny_fcos(class_names=NAMES[::-1])
    assert class_pairs("by_name", student, shuffled) == [(0, 3), (1, 2), (2, 1), (3, 0)]


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        (None, r"num_classes=4 and the teacher 5.*class_map='by_name'"),
        ({}, "maps no class"),
        ({"cow": "cat"}, r"the teacher has no class 'cow'; it has \['bus'"),
        ({"cat": "cow"}, "the student has no class 'cow'"),
        ({7: 0}, "the teacher has no class 7; it has 0 to 4"),
        ({0: 4}, "the student has no class 4; it has 0 to 3"),
        ({0: 1, 1: 1}, r"names the classes \[1\] of the student more than once"),
        ({0: 1, "bus": 2}, r"names the classes \[0\] of the teacher more than once"),
        ("by_index", "expected None, 'by_name' or"),
    ],
)
def test_a_map_that_does_not_fit_is_an_error_that_says_why(class_map, message):
    student, teacher = pair()
    with pytest.raises(DistillationError, match=message):
        distill(student, teacher, bckd=BCKD(class_map=class_map))


def test_names_are_needed_to_map_by_name_and_must_share_something():
    with pytest.raises(ValueError, match="needs the names of the teacher's classes"):
        class_pairs("by_name", tiny_fcos(class_names=NAMES), tiny_fcos())
    strangers = tiny_fcos(class_names=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="no class of the student .* has the name"):
        class_pairs("by_name", tiny_fcos(class_names=NAMES), strangers)


def test_equally_many_classes_with_other_names_are_not_taken_for_the_same():
    with pytest.raises(ValueError, match="class 0 is 'cat' in the student and 'bus' in the teach"):
        class_pairs(None, tiny_fcos(class_names=NAMES), tiny_fcos(class_names=NAMES[::-1]))


def test_several_maps_say_together_which_classes_correspond():
    student, teacher = pair()
    maps = {"a": {"sky": "car"}, "b": "by_name"}
    assert correspondence(student, teacher, maps) == [(0, 2), (1, 4), (2, 3), (3, 0)]
    alike = tiny_fcos(class_names=NAMES)
    assert correspondence(student, alike, {"a": None, "b": {"cat": "cat"}}) is None
    assert correspondence(student, alike, {"a": {0: 0, 1: 1}, "b": {2: 2, 3: 3}}) is None
    for given in ({"b": "by_name"}, {}):
        assert correspondence(student, teacher, given) == [(0, 2), (1, 4), (3, 0)]


def test_without_maps_and_names_only_equally_many_classes_are_known_to_correspond():
    assert correspondence(tiny_fcos(), tiny_fcos(class_names=NAMES), {}) is None
    assert correspondence(tiny_fcos(), tiny_fcos(num_classes=5), {}) == []
    assert counterparts([], tiny_fcos()).tolist() == [0, 0, 0, 0]
    assert counterparts([(1, 4), (3, 2)], tiny_fcos()).tolist() == [0, 4, 0, 2]
    assert counterparts(None, tiny_fcos()) is None


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (({0: 3}, None), "class 0 of the teacher is class 3 .* by first, and class 0 by second"),
        (({0: 3}, {1: 3}), "class 3 of the student is class 0 of the teacher by first"),
        (({0: 3}, {0: 2}), "class 0 of the teacher is class 3 of the student by first, and class"),
    ],
)
def test_maps_that_contradict_each_other_are_refused_whatever_their_order(maps, message):
    student, teacher = tiny_fcos(), tiny_fcos(seed=1)
    first, second = maps
    with pytest.raises(ValueError, match=message):
        correspondence(student, teacher, {"first": first, "second": second})
    with pytest.raises(ValueError, match="by second, and class . by first; give both the same"):
        correspondence(student, teacher, {"second": second, "first": first})


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "b", "c"]])
def test_a_detector_refuses_names_that_are_not_those_of_its_classes(names):
    with pytest.raises(ValueError, match="class_names has .* expected 4 different ones"):
        tiny_fcos(class_names=names)


def test_only_corresponding_scores_are_compared():
    student, teacher = pair()
    method = BCKD(class_map="by_name")
    model = distill(student, teacher, bckd=method)
    losses = model(batch())
    gradient = torch.autograd.grad(
        losses["kd_bckd_loss_cls"], student.head.cls_score.weight, retain_graph=True
    )[0]
    assert (gradient[[0, 1, 3]].abs().amax(dim=(1, 2, 3)) > 0).all()
    assert (gradient[2] == 0).all()  # the teacher knows no car

    # The same numbers from a teacher that has the three classes only, in the student's order.
    fewer = tiny_fcos(seed=1, num_classes=3, class_names=["cat", "dog", "bus"])
    state = teacher.state_dict()
    for key in ("head.cls_score.weight", "head.cls_score.bias"):
        state[key] = state[key][[2, 4, 0]]
    fewer.load_state_dict(state)
    other = distill(student, fewer, bckd=BCKD(class_map={0: 0, 1: 1, 2: 3}))
    student.loss_normalizer.fill_(300.0)
    again = other(batch())
    student.loss_normalizer.fill_(300.0)
    for term, loss in model(batch()).items():
        assert_close(again[term], loss, 1e-6, term)


def test_a_map_is_no_state_and_can_be_written_in_a_lazy_config():
    method = instantiate(L(BCKD)(class_map={"cat": "cat", "bus": "bus"}))
    student, teacher = pair()
    model = distill(student, teacher, bckd=method)
    assert method.student_classes.tolist() == [0, 3]
    assert method.teacher_classes.tolist() == [2, 0]
    assert set(model.state_dict()) == set(student.state_dict())
