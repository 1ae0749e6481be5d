"""Where teacher and label contradict each other, for each positive."""

from __future__ import annotations

import math

import pytest
import torch

from dense_kd import BCKD, Distiller, MethodSet, Teacher
from dense_kd.diagnostics.conflicts import THRESHOLDS, Conflicts, conflicts
from dense_kd.diagnostics.errors import DiagnosticsError
from dense_kd.diagnostics.locations import common_levels, compared_classes, location_labels
from dense_kd.outputs import Targets
from helpers.builders import tiny_fcos, tiny_gfl, tiny_retinanet
from helpers.dense_passes import dense_pass, logits_of

K = 2


def targets(labels: list[list[int]]) -> Targets:
    of = torch.tensor(labels)
    return Targets(of, torch.zeros(*of.shape, 4), K, torch.tensor(1.0))


def one_level(scores: list) -> tuple:
    """A student of one anchor per location whose own scores do not matter, and such a teacher."""
    teacher = dense_pass([logits_of(scores)], strides=[8])
    return dense_pass([torch.zeros_like(teacher.logits[0])], strides=[8]), teacher


# Labels: class 0, background, class 1, ignored; differences 0.1, 0.6, 0.7, -.
SCORES = [[[0.9, 0.1], [0.6, 0.2], [0.7, 0.9], [0.99, 0.99]]]
LABELS = [[0, K, 1, -1]]


def test_a_location_is_in_conflict_if_any_class_differs_by_more_than_the_threshold():
    student, teacher = one_level(SCORES)
    found = conflicts(student, teacher, targets(LABELS), thresholds=[0.05, 0.5, 0.65, 0.75])
    assert found.above == (3, 2, 1, 0)
    assert (found.positives, found.locations) == (2, 3)
    assert found.ratios == [1.5, 1.0, 0.5, 0.0]
    assert found.shares == [1.0, 2 / 3, 1 / 3, 0.0]


def test_more_than_the_threshold_leaves_out_what_equals_it():
    student, teacher = one_level([[[0.5, 0.5]]])
    found = conflicts(student, teacher, targets([[K]]), thresholds=[0.25, 0.5])
    assert found.above == (1, 0)


def test_without_positives_there_is_a_share_and_no_ratio():
    student, teacher = one_level(SCORES)
    found = conflicts(student, teacher, targets([[K, K, K, K]]), thresholds=[0.5])
    assert found.above == (4,) and found.shares == [1.0]
    assert math.isnan(found.ratios[0])


def test_where_all_is_ignored_nothing_is_defined():
    student, teacher = one_level(SCORES)
    found = conflicts(student, teacher, targets([[-1, -1, -1, -1]]))
    assert found.thresholds == THRESHOLDS and found.locations == 0
    assert all(map(math.isnan, [*found.ratios, *found.shares]))


def test_batches_are_added_up_before_they_are_divided():
    student, teacher = one_level(SCORES)
    limits = [0.5]
    one = conflicts(student, teacher, targets(LABELS), thresholds=limits)
    none = conflicts(student, teacher, targets([[K, K, K, K]]), thresholds=limits)
    assert (one + none).ratios == [6 / 2]
    with pytest.raises(DiagnosticsError, match="cannot be added"):
        one + Conflicts((0.1,), (1,), 1, 1)


def test_anchors_count_by_location_and_detectors_need_not_have_equally_many():
    # The teacher has two anchors at each of two locations; its best are 0.8 and 0.3 of class 0.
    teacher = dense_pass(
        [logits_of([[[0.8, 0.1], [0.2, 0.1], [0.3, 0.1], [0.1, 0.1]]])], strides=[8], num_anchors=2
    )
    # The student three: the first location is positive for class 0, the second ignored in part.
    student = dense_pass([torch.zeros(1, 6, K)], strides=[8], num_anchors=3)
    found = conflicts(
        student, teacher, targets([[0, -1, K, -1, K, K]]), thresholds=[0.15, 0.25, 0.35]
    )
    assert (found.above, found.positives, found.locations) == ((2, 1, 0), 1, 2)


def test_classes_without_a_counterpart_take_no_part():
    student, teacher = one_level(SCORES)
    classes = (torch.tensor([0]), torch.tensor([1]))  # the teacher's class 1 is the student's 0
    found = conflicts(student, teacher, targets(LABELS), thresholds=[0.15, 0.5], classes=classes)
    # 0.1 where 1 is wanted, 0.2 where 0 is; the third location is positive for what is left out.
    assert (found.above, found.positives, found.locations) == ((2, 1), 1, 2)


@pytest.mark.parametrize("thresholds", [[], [0.5, 1.5], ["much"]])
def test_thresholds_that_are_none_are_refused(thresholds):
    student, teacher = one_level(SCORES)
    with pytest.raises(DiagnosticsError, match="expected numbers from 0 to 1"):
        conflicts(student, teacher, targets(LABELS), thresholds=thresholds)


def test_levels_are_named_by_their_stride_and_found_wherever_they_stand():
    student = dense_pass([torch.zeros(1, 4, K), torch.zeros(1, 1, K)], strides=[8, 128])
    teacher = dense_pass([torch.zeros(1, 16, K), torch.zeros(1, 4, K)], strides=[4, 8])
    assert common_levels(student, teacher) == {"p3": (0, 1)}
    wanted, valid = location_labels(targets([[K, K, K, K, 1]]), student, 1)
    assert wanted.tolist() == [[[0.0, 1.0]]] and valid.tolist() == [[True]]


def distiller(student, teacher, **options) -> Distiller:
    methods = MethodSet(bckd=BCKD(**options))
    return Distiller(student=student, teacher=Teacher(teacher, None), methods=methods)


def test_classes_correspond_as_a_method_says_or_in_order():
    assert compared_classes(distiller(tiny_fcos(), tiny_fcos(seed=1))) is None
    mapped = distiller(tiny_fcos(), tiny_fcos(seed=1, num_classes=6), class_map={5: 0, 1: 2})
    ours, theirs = compared_classes(mapped)
    assert (ours.tolist(), theirs.tolist()) == ([0, 2], [5, 1])


def test_classes_correspond_by_name_if_no_method_says_how():
    from dense_kd import PKD

    def with_pkd(ours, theirs):
        student = tiny_gfl(num_classes=len(ours or "ab"), class_names=ours)
        teacher = tiny_retinanet(seed=1, num_classes=len(theirs), class_names=theirs)
        methods = MethodSet(pkd=PKD())
        return Distiller(student=student, teacher=Teacher(teacher, None), methods=methods)

    ours, theirs = compared_classes(with_pkd(["a", "b"], ["c", "b", "d"]))
    assert (ours.tolist(), theirs.tolist()) == ([1], [1])
    with pytest.raises(DiagnosticsError, match="which classes correspond is not known"):
        compared_classes(with_pkd(None, ["c", "b", "d"]))
