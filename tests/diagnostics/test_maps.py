"""Maps of single images, against values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dense_kd import BCKD, PGD, TID
from dense_kd.diagnostics.errors import DiagnosticsError
from dense_kd.diagnostics.maps import (
    assigned_classes,
    class_scores,
    foreground_masks,
    largest_of_levels,
    score_sum_error,
    student_sum_error,
    task_values,
)
from dense_kd.outputs import Targets
from helpers.builders import instances
from helpers.hand_made import hand_made_pass

SIZES = [(1, 2), (1, 1)]
STUDENT = hand_made_pass([[[0.1, 0.2], [0.5, 0.1]], [[0.2, 0.2]]], SIZES)
TEACHER = hand_made_pass([[[0.2, 0.3], [0.2, 0.4]], [[0.9, 0.6]]], SIZES)


def check(found: list[np.ndarray], expected: list[list[list[float]]]) -> None:
    assert all(level.dtype == np.float32 for level in found)
    assert [level.tolist() for level in found] == [
        [pytest.approx(row, abs=1e-5) for row in level] for level in expected
    ]


def with_classes(method, ours: list[int], theirs: list[int]):
    """The method as :meth:`KDMethod.prepare` leaves it for classes that differ."""
    method.register_buffer("student_classes", torch.tensor(ours), persistent=False)
    method.register_buffer("teacher_classes", torch.tensor(theirs), persistent=False)
    return method


def test_sums_of_scores_are_compared_and_clipped():
    """|0.5 - 0.3|, |0.6 - 0.6| although the classes differ, and |1.5 - 0.4| clipped."""
    check(score_sum_error(BCKD(), STUDENT, TEACHER), [[[0.2, 0.0]], [[0.4]]])
    check(score_sum_error(BCKD(), STUDENT, TEACHER, bound=2.0), [[[0.2, 0.0]], [[1.1]]])


def test_with_several_anchors_the_error_is_the_mean_of_theirs():
    """One is 0.2 too high and one 0.1 too low: their difference does not cancel."""
    ours = hand_made_pass([[[0.3], [0.4], [0.1], [0.1]]], [(2, 1)], num_anchors=2)
    theirs = hand_made_pass([[[0.5], [0.3], [0.1], [0.2]]], [(2, 1)], num_anchors=2)
    check(score_sum_error(BCKD(), ours, theirs), [[[0.15], [0.05]]])


def test_only_classes_that_correspond_are_summed():
    """The student's class 1 is the teacher's 0: |0.2 - 0.2|, |0.2 - 0.1|, |0.9 - 0.2|."""
    method = with_classes(BCKD(), [1], [0])
    check(score_sum_error(method, STUDENT, TEACHER, bound=1), [[[0.0, 0.1]], [[0.7]]])


def test_two_students_are_compared_over_all_their_classes():
    check(student_sum_error(STUDENT, TEACHER), [[[0.2, 0.0]], [[0.4]]])
    one_class = hand_made_pass([[[0.2], [0.2]], [[0.9]]], SIZES)
    with pytest.raises(DiagnosticsError, match=r"\(1, 2, 2\).*\(1, 2, 1\).*expected equal ones"):
        student_sum_error(STUDENT, one_class)


def test_a_heat_map_has_the_largest_score_of_classes_and_anchors():
    check(class_scores(TEACHER), [[[0.3, 0.4]], [[0.9]]])
    check(class_scores(TEACHER, category=1), [[[0.3, 0.4]], [[0.6]]])
    check(class_scores(TEACHER, classes=torch.tensor([0])), [[[0.2, 0.2]], [[0.9]]])
    anchors = hand_made_pass([[[0.3], [0.4], [0.2], [0.1]]], [(2, 1)], num_anchors=2)
    check(class_scores(anchors), [[[0.4], [0.2]]])


@pytest.mark.parametrize("category", [-1, 2])
def test_a_class_that_there_is_not_is_refused(category: int):
    with pytest.raises(DiagnosticsError, match=f"category={category}: expected .* 0 to 1"):
        class_scores(TEACHER, category=category)


def test_a_location_is_positive_if_an_anchor_is():
    dense = hand_made_pass([[[0.1, 0.1]] * 4, [[0.1, 0.1]] * 2], SIZES, num_anchors=2)
    labels = torch.tensor([[2, 0, 2, -1, 1, 2]])  # of two classes, with background and ignored
    targets = Targets(labels, torch.zeros(1, 6, 4), 2, torch.tensor(1.0))
    check(assigned_classes(targets, dense), [[[1, 0]], [[1]]])
    check(assigned_classes(targets, dense, category=1), [[[0, 0]], [[1]]])


# Two cells of 8 x 8 and one of 16 x 16 over an object in the left one, which is the box of two.
TRUTH = instances((8, 16), [[0, 0, 8, 8], [1, 1, 15, 7]], [0, 1])


def object_quality(method: PGD, teacher, truth, index: int) -> list[np.ndarray]:
    found = foreground_masks(method, teacher, truth, index, strategies=["quality"])
    return found["quality"]


def test_quality_is_that_of_score_and_overlap_within_the_object():
    """Left cell: score 0.2 and IoU 1. The coarse cell's point (8, 8) is on the border: outside."""
    method = PGD(cls_iou_exponent=0.5)
    check(object_quality(method, TEACHER, TRUTH, 0), [[[0.2**0.5, 0]], [[0]]])


def test_quality_of_an_object_of_a_class_that_the_teacher_lacks_is_0():
    method = with_classes(PGD(), [1], [0])
    check(object_quality(method, TEACHER, TRUTH, 0), [[[0, 0]], [[0]]])
    # The student's class 1 is the teacher's 0, whose score is 0.2; of the object's 84 pixels 42 are
    # in each cell of 64. The point (8, 8) of the coarse cell is below the object.
    overlap = 42 / (64 + 84 - 42)
    quality = 0.2 ** (1 - 0.8) * overlap**0.8
    check(object_quality(method, TEACHER, TRUTH, 1), [[[quality, quality]], [[0]]])


def test_all_strategies_weight_one_object_or_all():
    masks = foreground_masks(PGD(topk=1, cls_iou_exponent=0.5), TEACHER, TRUTH, 0)
    assert [*masks] == ["box", "box_gaussian", "center", "quality", "topk", "kde", "ours"]
    for strategy in ("box", "box_gaussian", "center", "topk", "kde", "ours"):
        check(masks[strategy], [[[1, 0]], [[0]]])  # the point is the object's centre
    check(masks["quality"], [[[0.2**0.5, 0]], [[0]]])
    check(foreground_masks(PGD(), TEACHER, TRUTH, strategies=["box"])["box"], [[[1, 1]], [[0]]])


def test_an_image_without_objects_has_masks_of_0_and_no_object_to_choose():
    nothing = instances((8, 16), [], [])
    for levels in foreground_masks(PGD(), TEACHER, nothing).values():
        check(levels, [[[0, 0]], [[0]]])
    with pytest.raises(DiagnosticsError, match="no object 0; .* the image has 0 objects"):
        object_quality(PGD(), TEACHER, nothing, 0)
    for index in (-1, 2):
        with pytest.raises(DiagnosticsError, match=f"no object {index}; expected a number from 0"):
            foreground_masks(PGD(), TEACHER, TRUTH, index)


def test_a_released_method_has_masks_of_the_other_strategies_too():
    masks = foreground_masks(PGD(compat="released"), TEACHER, TRUTH, 0, strategies=["box"])
    check(masks["box"], [[[1, 0]], [[0]]])


def test_values_of_both_tasks_and_areas_are_those_of_tid():
    """The object is the left cell, which both detectors predict. One point of three has the best
    scores: for class 0 the teacher's 0.9 of the coarse cell, the student's 0.5 of the right one."""
    truth = TRUTH[:1]
    found = task_values(TID(vicinity_width=0.0), STUDENT, TEACHER, truth)
    check(found["cls"], [[[1, 1]], [[1.5]]])
    check(found["loc"], [[[2, 0.4]], [[0.4]]])  # IoU 1, 0 and 64 / 256
    check(found["importance"], [[[2, 0.4]], [[0.6]]])
    check(found["student_importance"], [[[2, 0.6]], [[0.4]]])
    check(found["key"], [[[2, 0.4]], [[0.6]]])
    check(found["weak"], [[[0, 0]], [[1]]])  # where the teacher's 0.6 exceed the student's 0.4
    # Vicinity: within, at 4 of 8 pixels, and on the corner; V = 2, 0.2 and 0.9, 0.7 of what is
    # below 1.
    check(found["weights"], [[[2, 0.2 * 0.7]], [[0.9 * 0.7]]])


def test_tid_has_no_values_without_objects_or_with_others_than_the_compared_ones():
    method = with_classes(TID(), [1], [0])
    for truth in (TRUTH[:0], TRUTH[:1]):
        for levels in task_values(method, STUDENT, TEACHER, truth).values():
            check(levels, [[[0, 0]], [[0]]])
    assert task_values(method, STUDENT, TEACHER, TRUTH)["loc"][0].min() > 0


def test_over_all_levels_a_cell_has_the_largest_value_of_those_over_it():
    fine = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    coarse = np.array([[3.5, 0]], np.float32)
    assert largest_of_levels([fine, coarse], [8, 16]).tolist() == [[3.5, 3.5, 3], [4, 5, 6]]
    assert largest_of_levels([fine], [8]).tolist() == fine.tolist()
    assert largest_of_levels([fine, coarse[:, :1]], [8, 16]).tolist()[0] == [3.5, 3.5, 3.5]


def test_one_level_is_enough():
    ours, theirs = (hand_made_pass([[[s, 0.1]]], [(1, 1)]) for s in (0.3, 0.6))
    truth = instances((8, 8), [[0, 0, 8, 8]], [0])
    check(score_sum_error(BCKD(), ours, theirs), [[[0.3]]])
    check(class_scores(theirs), [[[0.6]]])
    check(object_quality(PGD(cls_iou_exponent=0), theirs, truth, 0), [[[0.6]]])
    check(task_values(TID(), ours, theirs, truth)["importance"], [[[3.0]]])
