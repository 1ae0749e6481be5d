"""Which locations student and teacher score highest, and how alike they rank all of them."""

from __future__ import annotations

import math

import pytest
import torch

from dense_kd.diagnostics.agreement import (
    agreement,
    mean_ranks,
    rank_correlation,
    top_overlap,
)
from dense_kd.diagnostics.errors import DiagnosticsError
from helpers.dense_passes import dense_pass, logits_of


def test_overlap_is_the_iou_of_the_sets_of_the_best():
    first = torch.tensor([0.9, 0.8, 0.7, 0.1, 0.2])
    second = torch.tensor([0.1, 0.8, 0.9, 0.7, 0.2])
    assert top_overlap(first, second, 2) == pytest.approx(1 / 3)  # {0, 1} and {2, 1}
    assert top_overlap(first, second, 3) == pytest.approx(2 / 4)  # {0, 1, 2} and {2, 1, 3}
    assert top_overlap(first, second, 9) == 1
    assert top_overlap(first, -first, 1) == 0


def test_of_equal_scores_the_earlier_location_is_the_higher():
    assert top_overlap(torch.zeros(4), torch.tensor([4.0, 3.0, 2.0, 1.0]), 2) == 1
    assert top_overlap(torch.zeros(4), torch.tensor([1.0, 2.0, 3.0, 4.0]), 2) == 0


def test_equal_values_share_the_mean_of_their_ranks():
    ranks = mean_ranks(torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0, 1.0]))
    assert ranks.tolist() == [5.0, 1.5, 5.0, 3.0, 5.0, 1.5]


def test_rank_correlation_is_spearmans():
    first = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(first, first.exp()) == pytest.approx(1)
    assert rank_correlation(first, -first) == pytest.approx(-1)
    # Without ties 1 - 6 sum d^2 / (n (n^2 - 1)), with d = (-1, 1, -1, 1).
    assert rank_correlation(first, torch.tensor([2.0, 1.0, 4.0, 3.0])) == pytest.approx(0.6)
    # Ranks (1, 2, 3, 4) and (1.5, 1.5, 3.5, 3.5): Pearson's is 4 / sqrt(5 * 4).
    assert rank_correlation(first, torch.tensor([0.0, 0, 7, 7])) == pytest.approx(4 / math.sqrt(20))


@pytest.mark.parametrize("values", [[], [5.0], [5.0, 5.0]])
def test_ranks_of_a_constant_have_no_correlation(values):
    assert math.isnan(rank_correlation(torch.tensor(values), torch.arange(len(values)).float()))


def test_a_level_without_locations_has_none_of_the_two():
    empty = dense_pass([torch.zeros(1, 0, 1)], strides=[8])
    found = agreement(empty, empty)["p3"]
    assert math.isnan(found.overlap) and math.isnan(found.correlation)


def test_levels_of_equal_stride_are_compared_by_the_best_class_of_the_best_anchor():
    # Scores of p4, by location: student 0.1 0.8 0.3, teacher (two anchors) 0.3 0.6 0.9.
    student = dense_pass(
        [torch.zeros(1, 4, 2), logits_of([[[0.1, 0.05], [0.2, 0.8], [0.3, 0.1]]])], strides=[8, 16]
    )
    teacher = dense_pass(
        [logits_of([[[0.3, 0.2], [0.1, 0.1], [0.5, 0.2], [0.6, 0.1], [0.9, 0.1], [0.1, 0.2]]]),
         torch.zeros(1, 2, 2)],
        strides=[16, 32], num_anchors=2,
    )  # fmt: skip
    found = agreement(student, teacher)
    assert [*found] == ["p4"]
    # A tenth of three locations is one: location 1 and location 2. Ranks 1 3 2 and 1 2 3.
    assert found["p4"].overlap == 0 and found["p4"].correlation == pytest.approx(0.5)
    # Of the second class alone: 0.05 0.8 0.1 and 0.2 0.2 0.2, which is constant.
    one = (torch.tensor([1]), torch.tensor([1]))
    assert math.isnan(agreement(student, teacher, one)["p4"].correlation)


def test_it_is_the_mean_over_images():
    student = dense_pass([logits_of([[[0.1], [0.2], [0.3]], [[0.1], [0.2], [0.3]]])], strides=[8])
    teacher = dense_pass([logits_of([[[0.1], [0.2], [0.3]], [[0.9], [0.6], [0.3]]])], strides=[8])
    found = agreement(student, teacher)["p3"]
    assert found.overlap == 0.5 and found.correlation == pytest.approx(0)


def test_at_most_a_hundred_locations_are_chosen():
    scores = torch.arange(2000.0)
    student = dense_pass([scores.view(1, -1, 1)], strides=[8])
    teacher = dense_pass([scores.roll(50).view(1, -1, 1)], strides=[8])
    # Locations 1900 to 1999, and 1950 to 1999 with 0 to 49.
    assert agreement(student, teacher)["p3"].overlap == pytest.approx(50 / 150)


def test_passes_over_other_images_are_refused():
    with pytest.raises(DiagnosticsError, match="3 locations at stride 8 and the teacher 4"):
        agreement(
            dense_pass([torch.zeros(1, 3, 1)], strides=[8]),
            dense_pass([torch.zeros(1, 4, 1)], strides=[8]),
        )
