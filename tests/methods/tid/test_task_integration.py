"""The three modules of TID: each equation by hand, and what images can do to them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dense_kd.methods.base import objects
from dense_kd.methods.tid.task_integration import (
    PointPredictions,
    classification_scores,
    dual_task_importance,
    feature_decoupling,
    first_in_turns,
    in_turns,
    learning_dynamics,
    localization_scores,
    object_vicinity,
    point_predictions,
    top_count,
)


def predictions(overlaps=(0.0,), scores=None, boxes=None) -> PointPredictions:
    count = len(overlaps)
    apart = [[100.0 * i, 0.0, 100.0 * i + 10, 10.0] for i in range(count)]
    return PointPredictions(
        boxes=torch.tensor(apart if boxes is None else boxes),
        overlaps=torch.tensor(overlaps),
        objects=torch.zeros(count, dtype=torch.int64),
        scores=torch.tensor([0.5] * count if scores is None else scores),
    )


def test_eq_1_scores_an_overlap_by_two_thresholds_which_belong_to_the_outer_classes():
    found = localization_scores(torch.tensor([0.0, 0.4, 0.41, 0.49, 0.5, 1.0]), 0.5, 0.4)
    assert found.tolist() == pytest.approx([0.4, 0.4, 1.5, 1.5, 2.0, 2.0])


def test_eq_1_takes_a_threshold_for_each_point():
    found = localization_scores(torch.tensor([0.3, 0.3]), torch.tensor([0.3, 0.8]), 0.2)
    assert found.tolist() == [2.0, 1.5]


@pytest.mark.parametrize(("gamma", "count"), [(0.025, 2), (0.02, 1), (0.0125, 1), (1.0, 50)])
def test_eq_2_favours_the_best_part_of_the_points_rounded_up(gamma: float, count: int):
    scores = torch.linspace(0, 1, 50)[
        torch.randperm(50, generator=torch.Generator().manual_seed(0))
    ]
    found = classification_scores(scores, gamma)
    best = scores > sorted(scores.tolist())[-count] - 1e-6
    assert found.tolist() == [1.5 if b else 1.0 for b in best]


def test_counts_are_not_disturbed_by_rounding():
    assert [top_count(n, 0.025) for n in (1, 40, 41, 4000, 22400)] == [1, 1, 2, 100, 560]


CASE = predictions(overlaps=(0.6, 0.45, 0.1, 0.7), scores=(0.9, 0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [3.0, 1.5, 0.4, 2.0]),
        ({"combine": "sum"}, [3.5, 2.5, 1.4, 3.0]),
        ({"tasks": "cls"}, [1.5, 1.0, 1.0, 1.0]),
        ({"tasks": "loc"}, [2.0, 1.5, 0.4, 2.0]),
        ({"positive": None}, [0.9, 0.45, 0.1, 0.7]),
        ({"cls_part": 0.5}, [3.0, 1.5, 0.4, 3.0]),
    ],
)
def test_eq_3_is_the_product_of_both_scores(options: dict, expected: list):
    assert dual_task_importance(CASE, **options).tolist() == pytest.approx(expected)


def test_points_are_matched_over_their_anchors_and_all_objects():
    gt = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 40.0, 10.0]])
    boxes = torch.tensor(
        [
            [[0.0, 0.0, 10.0, 5.0], [20.0, 0.0, 40.0, 9.0]],  # IoU 0.5 with the first, 0.9
            [[50.0, 0.0, 60.0, 10.0], [70.0, 0.0, 80.0, 10.0]],  # nothing
            [[0.0, 0.0, 8.0, 10.0], [30.0, 0.0, 40.0, 10.0]],  # 0.8, and 0.5 with the second
        ]
    )
    scores = torch.tensor(
        [
            [[0.1, 0.9, 0.2], [0.3, 0.8, 0.4]],
            [[0.1, 0.9, 0.2], [0.3, 0.8, 0.6]],
            [[0.1, 0.9, 0.2], [0.3, 0.8, 0.4]],
        ]
    )
    found = point_predictions(scores.logit(), boxes, gt, torch.tensor([0, 2]))
    assert found.overlaps.tolist() == pytest.approx([0.9, 0.0, 0.8])
    assert found.objects.tolist() == [1, 0, 0]
    # of class 2 of the second object; the better of classes 0 and 2; class 0; over anchors
    assert found.scores.tolist() == pytest.approx([0.4, 0.6, 0.3])
    assert found.boxes.tolist() == [boxes[0, 1].tolist(), boxes[1, 0].tolist(),
                                    boxes[2, 0].tolist()]  # fmt: skip


def test_matching_does_not_depend_on_the_size_of_the_chunks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    low = 50 * torch.rand(27, 2, generator=generator)
    size = 30 * torch.rand(27, 2, generator=generator)
    boxes = torch.cat((low, low + size), dim=1)
    classes = torch.randint(0, 3, (7,), generator=generator)
    logits = torch.randn(10, 2, 3, generator=generator)

    def found() -> tuple[Tensor, ...]:
        matched = point_predictions(logits, boxes[:20].view(10, 2, 4), boxes[20:], classes)
        near = object_vicinity(boxes[:20, :2], torch.full((20,), 8.0), boxes[20:])
        turns = in_turns(boxes, 0.3)
        return matched.boxes, matched.overlaps, matched.objects, matched.scores, near, turns

    whole = found()
    monkeypatch.setattr(objects, "PAIRS_AT_ONCE", 1)
    for a, b in zip(whole, found()):
        assert torch.equal(a, b)


@pytest.mark.parametrize("at_once", [1, 10**6])
def test_of_objects_that_overlap_a_prediction_equally_the_first_counts(at_once: int, monkeypatch):
    monkeypatch.setattr(objects, "PAIRS_AT_ONCE", at_once)
    gt = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 3)
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 5.0]]])
    scores = torch.tensor([[[0.1, 0.9, 0.2]]])
    found = point_predictions(scores.logit(), boxes, gt, torch.tensor([0, 1, 2]))
    assert found.objects.tolist() == [0]
    assert found.scores.tolist() == pytest.approx([0.1])


# Eight points: the teacher's scores, the student's, and what follows from them.
TEACHER = torch.tensor([3.0, 2.0, 2.0, 0.4, 1.5, 0.6, 0.4, 2.0])
STUDENT = torch.tensor([3.0, 0.4, 0.4, 2.0, 0.4, 0.4, 0.4, 1.5])


def dynamics(**options) -> list[float]:
    teacher = predictions((0.0,) * 8, scores=(0.1, 0.2, 0.9, 0.3, 0.4, 0.5, 0.6, 0.7))
    return learning_dynamics(TEACHER, STUDENT, teacher, **options).tolist()


def test_eq_4_and_5_take_the_teachers_score_and_the_largest_gain():
    """Points 1 and 2 gain 1.6 each; of the two the teacher is surer of point 2."""
    expected = [3.0, 2.0, 2.0 * 1.5, 0.4, 1.5, 0.6, 0.4, 2.0]
    assert dynamics(gamma=0.125) == pytest.approx(expected)


def test_eq_6_never_takes_points_where_the_student_is_as_good_or_better():
    weak = [False, True, True, False, True, True, False, True]
    found = dynamics(gamma=1.0, areas="weak")
    assert found == [1.5 if w else 1.0 for w in weak]


def test_eq_7_multiplies_key_and_weak_and_either_may_stand_alone():
    weak = dynamics(gamma=0.25, areas="weak")
    assert weak == [1.0, 1.5, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    key = dynamics(gamma=0.25, areas="key")
    assert key == pytest.approx(TEACHER.tolist())
    both = dynamics(gamma=0.25)
    assert both == pytest.approx([a * b for a, b in zip(weak, key)])


def test_key_points_may_be_restricted_to_the_best():
    """Of points 1, 2 and 7 with a score of 2, the teacher is surest of point 2."""
    assert dynamics(gamma=0.25, areas="key", gamma_key=True) == [3.0, 0, 2.0, 0, 0, 0, 0, 0]


def test_nms_spreads_weak_points_over_objects():
    box, other = [0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0]
    teacher = predictions((0.0,) * 4, scores=(0.9, 0.8, 0.7, 0.6), boxes=[box, box, other, box])
    gain = torch.tensor([2.0, 2.0, 0.5, 0.1])
    arguments = (gain, torch.zeros(4), teacher)
    options = {"gamma": 0.5, "areas": "weak"}
    assert learning_dynamics(*arguments, **options).tolist() == [1.5, 1.0, 1.5, 1.0]
    everything = learning_dynamics(*arguments, **options, nms_thresh=None)
    assert everything.tolist() == [1.5, 1.5, 1.0, 1.0]


def test_nms_keeps_the_whole_areas_of_weak_points_which_take_turns():
    """Five points look at one object, two at another, and one at a third."""
    first, second, third = ([x, 0.0, x + 10.0, 10.0] for x in (0.0, 50.0, 90.0))
    boxes = [first, first, second, first, third, second, first, first]
    teacher = predictions((0.0,) * 8, scores=(0.5,) * 8, boxes=boxes)
    gain = torch.linspace(2.0, 0.5, 8)
    order = [0, 2, 4, 1, 5, 3, 6, 7]  # the best of each, the second best of each, and the others
    assert in_turns(torch.tensor(boxes), 0.6).tolist() == order
    for count in range(1, 9):
        found = learning_dynamics(gain, torch.zeros(8), teacher, gamma=count / 8, areas="weak")
        assert found.tolist() == [1.5 if i in order[:count] else 1.0 for i in range(8)]


def test_an_area_is_a_box_that_nms_keeps_and_what_it_drops_for_it():
    """Boxes 10 wide, shifted by 2 overlap by 2/3, shifted by 4 by 3/7: 1 is dropped for 0, and 2,
    which overlaps 1 enough, is kept, as 1 does not count any more; 3 is dropped for 2."""
    boxes = torch.tensor([[x, 0.0, x + 10.0, 10.0] for x in (0.0, 2.0, 4.0, 6.0)])
    assert in_turns(boxes, 0.6).tolist() == [0, 2, 1, 3]
    assert in_turns(boxes[:0], 0.6).tolist() == []
    empty = torch.zeros(3, 4)  # none overlaps anything, itself included
    assert in_turns(empty, 0.6).tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 4, 12, 20, 30])
def test_boxes_that_are_not_wanted_take_no_turns(count: int):
    """Twenty of thirty are wanted, of eight areas."""
    low = 50 * torch.rand(30, 2, generator=torch.Generator().manual_seed(0))
    boxes = torch.cat((low, low + 30), dim=1)
    wanted = torch.arange(30) < 20
    expected = in_turns(boxes[wanted], 0.3).tolist()
    assert sorted(expected[:8]) != list(range(8))
    found = first_in_turns(boxes, wanted, 0.3, count).tolist()
    assert len(found) == count and found[:20] == expected[:count]
    assert first_in_turns(boxes[wanted], wanted[wanted], 0.3, count).tolist() == expected[:count]
    assert first_in_turns(boxes[:0], wanted[:0], 0.3, count).tolist() == []


@pytest.mark.parametrize("at_once", [1, 10**6])
def test_a_box_that_two_kept_boxes_overlap_is_of_the_area_of_the_better(at_once: int, monkeypatch):
    """0 and 1 are kept; 2 overlaps both by 3/7, 3 only the first, 4 only the second."""
    monkeypatch.setattr(objects, "PAIRS_AT_ONCE", at_once)
    boxes = torch.tensor([[x, 0.0, x + 10.0, 10.0] for x in (0.0, 8.0, 4.0, -2.0, 10.0)])
    assert in_turns(boxes, 0.3).tolist() == [0, 1, 2, 4, 3]


BOX = torch.tensor([[100.0, 100.0, 140.0, 180.0]])  # its ring is 10 wide, at stride 8


def vicinity(points: list, stride: float = 8.0, boxes: Tensor = BOX, **options) -> list[float]:
    strides = torch.full((len(points),), stride)
    return object_vicinity(torch.tensor(points), strides, boxes, **options).tolist()


POINTS = [[120.0, 150.0], [100.0, 100.0], [95.0, 150.0], [143.0, 184.0], [90.0, 150.0], [0.0, 0.0]]


def test_eq_9_falls_from_the_border_of_an_object_to_the_end_of_its_ring():
    assert vicinity(POINTS) == pytest.approx([1.0, 1.0, 0.5, 0.5, 0.0, 0.0])  # 3-4-5


def test_eq_9_may_rise_as_it_is_printed():
    found = vicinity(POINTS, decreases=False)
    assert found == pytest.approx([1.0, 1.0, 0.5, 0.5, 1.0, 0.0])


def test_the_ring_is_at_least_a_stride_wide_and_may_be_set():
    assert vicinity([[95.0, 150.0]], stride=20.0) == pytest.approx([0.75])
    assert vicinity([[95.0, 150.0]], width=0.5) == pytest.approx([0.75])
    assert vicinity([[95.0, 150.0]], width=0.0) == pytest.approx([0.375])


def test_of_several_objects_the_nearest_counts_and_without_any_nothing_does():
    boxes = torch.cat((BOX, torch.tensor([[0.0, 148.0, 92.0, 190.0]])))  # its ring: 10.5
    assert vicinity([[95.0, 150.0]], boxes=boxes) == pytest.approx([1 - 3 / 10.5])
    assert vicinity(POINTS, boxes=BOX[:0]) == [0.0] * 6


def test_eq_10_and_11_weaken_medium_and_low_values():
    values = torch.tensor([3.0, 1.0, 2.0, 0.4, 0.4, 2.0, 2.0])
    information = torch.tensor([1.0, 1.0, 0.25, 1.0, 0.02, 0.005, 0.0])
    expected = [3.0, 1.0, 0.7 * 0.5, 0.7 * 0.4, 0.05 * 0.008, 0.7 * 0.01, 0.0]
    assert feature_decoupling(values, information).tolist() == pytest.approx(expected)
