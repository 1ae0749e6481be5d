"""How far the student's scores are from the teacher's and from the labels."""

from __future__ import annotations

import math

import pytest
import torch

from dense_kd.diagnostics.distances import Distances, distances
from dense_kd.outputs import Targets
from helpers.dense_passes import dense_pass, logits_of


def targets(labels: list[int]) -> Targets:
    return Targets(torch.tensor([labels]), torch.zeros(1, len(labels), 4), 2, torch.tensor(1.0))


STUDENT = dense_pass([logits_of([[[0.2, 0.5], [0.1, 0.1], [0.9, 0.9]]])], strides=[8])
TEACHER = dense_pass([logits_of([[[0.6, 0.4], [0.1, 0.4], [0.1, 0.1]]])], strides=[8])


def test_they_are_sums_over_classes_and_means_over_locations_that_are_not_ignored():
    found = distances(STUDENT, TEACHER, targets([0, 2, -1]))
    # To the teacher 0.4 + 0.1 and 0 + 0.3; to the labels 0.8 + 0.5 and 0.1 + 0.1.
    assert found.locations == 2
    assert found.teacher == pytest.approx((0.5 + 0.3) / 2)
    assert found.truth == pytest.approx((1.3 + 0.2) / 2)


def test_batches_are_added_up_before_they_are_divided():
    found = Distances(1.0, 4.0, 1) + Distances(2.0, 2.0, 2)
    assert (found.teacher, found.truth) == (1.0, 2.0)


def test_classes_without_a_counterpart_take_no_part():
    classes = (torch.tensor([1]), torch.tensor([0]))
    found = distances(STUDENT, TEACHER, targets([1, 2, 0]), classes=classes)
    # 0.5 and 0.1 against 0.6 and 0.1, labels 1 and 0; the third is of a class that is left out.
    assert found.locations == 2
    assert found.teacher == pytest.approx((0.1 + 0.0) / 2, abs=1e-6)
    assert found.truth == pytest.approx((0.5 + 0.1) / 2)


def test_where_nothing_is_compared_nothing_is_defined():
    found = distances(STUDENT, TEACHER, targets([-1, -1, -1]))
    assert math.isnan(found.teacher) and math.isnan(found.truth)
