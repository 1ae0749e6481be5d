"""The parts of AutoAssign's losses, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.structures import Instances
from torch import Tensor

from dense_kd.detectors.assignment.soft import (
    LOSS_WITHOUT_LOCATION,
    Pairs,
    grouped_logsumexp,
    negative_loss,
    negative_weights,
    points_inside,
    positive_loss,
)
from helpers.builders import assert_close, instances


def row_of_points(count: int) -> Tensor:
    """(R, 4): squares of side 8 around (0, 8), (8, 8), (16, 8), ..."""
    centers = torch.tensor([[8.0 * x, 8.0] for x in range(count)])
    return torch.cat((centers - 4, centers + 4), dim=1)


def truth(*boxes: list[float], classes: list[int]) -> Instances:
    return instances((64, 64), list(boxes), classes)


def test_a_point_on_a_side_is_not_inside():
    priors = row_of_points(4)
    left, top, right, bottom = [8, 0, 20, 20], [-1, 8, 9, 20], [-1, 0, 8, 20], [-1, 0, 30, 8]
    boxes = torch.tensor([left, top, right, bottom, [-1, 7, 9, 9]]).float()
    expected = [[0, 0, 1, 0, 1], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert points_inside(priors, boxes).int().tolist() == expected
    assert points_inside(priors, boxes[:0]).shape == (4, 0)


def test_pairs_are_each_point_with_each_box_it_is_in():
    pairs = Pairs.find(
        row_of_points(4),
        truth([4, 0, 20, 20], [9, 0, 15, 20], [-1, 7, 9, 9], classes=[3, 2, 1]),
    )
    assert pairs.points.tolist() == [0, 1, 1, 2] and pairs.objects.tolist() == [2, 0, 2, 0]
    assert pairs.classes.tolist() == [1, 3, 1, 3]
    assert pairs.boxes[:, 0].tolist() == [-1, 4, -1, 4]


def naive_positive_loss(p: Tensor, prior: Tensor, objects: Tensor) -> Tensor:
    loss = torch.zeros((), dtype=p.dtype)
    for index in objects.unique():
        of_box = objects == index
        weight = (3 * p[of_box]).exp() * prior[of_box]
        loss = loss - (weight / weight.sum() * p[of_box]).sum().log()
    return loss


def test_the_positive_loss_of_two_boxes_worked_out_by_hand():
    p, prior = torch.tensor([0.5, 0.2, 0.9]), torch.tensor([1.0, 0.5, 0.1])
    objects = torch.tensor([4, 4, 1])
    # Box 1 has one location, whose weight is 1 whatever its prior; box 4 has two.
    first, second = math.exp(1.5) * 1.0, math.exp(0.6) * 0.5
    expected = -math.log(0.9) - math.log((first * 0.5 + second * 0.2) / (first + second))
    loss = positive_loss(p.log(), prior.log(), objects, 2)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert naive_positive_loss(p, prior, objects).item() == pytest.approx(expected, rel=1e-6)


def test_gradients_of_the_positive_loss_go_through_its_weights():
    generator = torch.Generator().manual_seed(0)
    p, prior = torch.rand(2, 40, generator=generator, dtype=torch.float64).requires_grad_()
    objects = torch.randint(0, 6, (40,), generator=generator)
    expected = torch.autograd.grad(naive_positive_loss(p, prior, objects), (p, prior))
    found = torch.autograd.grad(positive_loss(p.log(), prior.log(), objects, 6), (p, prior))
    for gradient, reference in zip(found, expected):
        assert reference.abs().max() > 0.1
        assert_close(gradient, reference, 1e-10)


def test_scores_and_priors_that_underflow_give_finite_losses_and_gradients():
    confidence = torch.tensor([-200.0, -300.0]).requires_grad_()
    prior = torch.tensor([-500.0, -501.0]).requires_grad_()
    loss = positive_loss(confidence, prior, torch.tensor([0, 0]), 1)
    # p underflows, so the weights are those of the priors: e and 1 by e + 1.
    assert loss.item() == pytest.approx(200 - math.log(math.e / (1 + math.e)), rel=1e-6)
    gradients = torch.autograd.grad(loss, (confidence, prior))
    assert gradients[0].tolist() == pytest.approx([-1, 0])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_positive_loss_without_locations_keeps_the_graph():
    confidence, prior = torch.zeros(2, 0, requires_grad=True)
    loss = positive_loss(confidence, prior, torch.zeros(0, dtype=torch.int64), 0)
    assert loss == 0 and loss.requires_grad
    loss.backward()


def test_boxes_without_a_location_add_100_each_which_nothing_learns_from():
    p, prior = torch.tensor([0.5, 0.2], requires_grad=True), torch.tensor([1.0, 0.5])
    losses = [positive_loss(p.log(), prior.log(), torch.tensor([0, 0]), count) for count in (1, 4)]
    assert (losses[1] - losses[0]).item() == pytest.approx(300, rel=1e-6)
    gradients = [torch.autograd.grad(loss, p)[0] for loss in losses]
    assert torch.equal(*gradients) and gradients[0].abs().min() > 0
    bound = torch.nn.functional.binary_cross_entropy(torch.zeros(1), torch.ones(1))
    assert bound == LOSS_WITHOUT_LOCATION == 100


def test_grouped_logsumexp_is_that_of_each_group():
    values = torch.tensor([1000.0, 2.0, 1001.0, -3.0])
    found = grouped_logsumexp(values, torch.tensor([1, 0, 1, 0]), 2)
    assert torch.equal(found, torch.stack((values[1::2].logsumexp(0), values[::2].logsumexp(0))))


def weights_of(predicted: Tensor, ground_truth: Instances, num_classes: int = 3) -> Tensor:
    pairs = Pairs.find(row_of_points(len(predicted)), ground_truth)
    return negative_weights(predicted, ground_truth.gt_boxes, pairs, num_classes)


BOX = [-5.0, 0.0, 45.0, 20.0]
"""Holds six points of :func:`row_of_points`."""


def with_iou(*overlaps: float) -> Tensor:
    """(R, 4): boxes with these IoUs with ``BOX``, of which they are the left part."""
    return torch.tensor([[-5.0, 0, -5 + 50 * overlap, 20] for overlap in overlaps])


def test_negative_weights_fall_from_the_worst_to_the_best_location_of_a_box():
    weights = weights_of(with_iou(0.5, 0.75, 0.2, 0.6, 0.9, 0.5, 1.0), truth(BOX, classes=[1]))
    # 1 / (1 - IoU) is 2, 4, 1.25, 2.5, 10 and 2 in the box; the seventh point is outside.
    expected = [1 - (f - 1.25) / 8.75 for f in (2, 4, 1.25, 2.5, 10, 2)]
    assert weights[:, 1].tolist() == pytest.approx([*expected, 1], abs=1e-5)
    assert weights[2, 1] == 1 and weights[4, 1] == 0
    assert (weights[:, [0, 2]] == 1).all()


def test_the_iou_of_a_location_is_the_largest_with_any_box_also_one_it_is_not_in():
    predicted = torch.cat((with_iou(0.5, 0.75), torch.tensor([[100.0, 0, 140, 10]])))
    alone = weights_of(predicted, truth(BOX, classes=[0]))
    assert alone[:, 0].tolist() == pytest.approx([1 - 1 / 3, 0, 1], abs=1e-5)
    # The third location predicts four fifths of a box elsewhere.
    both = weights_of(predicted, truth(BOX, [100, 0, 150, 10], classes=[0, 1]))
    f = [2, 4, 5]
    assert both[:, 0].tolist() == pytest.approx([1 - (x - 2) / 3 for x in f], abs=1e-5)
    assert (both[:, 1:] == 1).all()


def test_more_boxes_than_are_compared_at_once_are_all_looked_at():
    elsewhere = [[1000.0, 1000.0, 1010.0, 1010.0]] * 150
    predicted = with_iou(0.5, 0.75, 0.2)
    expected = weights_of(predicted, truth(BOX, classes=[1]))
    for place in (0, 70, 150):
        boxes = [*elsewhere[:place], BOX, *elsewhere[place:]]
        classes = [0] * place + [1] + [0] * (150 - place)
        assert torch.equal(weights_of(predicted, truth(*boxes, classes=classes)), expected)


def test_of_boxes_of_one_class_the_last_decides():
    predicted = with_iou(0.5, 0.75, 0.2, 0.6)  # 25, 37.5, 10 and 30 long
    short = [-5.0, 0.0, 12.0, 20.0]  # 17 long, holds the first two points
    # The largest IoU of each location is with the short box for the first and the third.
    f = [1 / (1 - 17 / 25), 4, 1 / (1 - 10 / 17), 2.5]
    of_long = [1 - (x - min(f)) / (max(f) - min(f)) for x in f]
    of_short = [1, 0]  # 3.125 and 4

    first = weights_of(predicted, truth(BOX, short, classes=[1, 1]))
    assert first[:, 1].tolist() == pytest.approx([*of_short, *of_long[2:]], abs=1e-5)
    last = weights_of(predicted, truth(short, BOX, classes=[1, 1]))
    assert last[:, 1].tolist() == pytest.approx(of_long, abs=1e-5)

    for boxes, classes in (((short, BOX), [2, 1]), ((BOX, short), [1, 2])):
        weights = weights_of(predicted, truth(*boxes, classes=classes))
        assert weights[:, 1].tolist() == pytest.approx(of_long, abs=1e-5)
        assert weights[:, 2].tolist() == pytest.approx([*of_short, 1, 1], abs=1e-5)


def test_two_identical_boxes_weigh_like_one():
    predicted = with_iou(0.5, 0.75, 0.2)
    expected = weights_of(predicted, truth(BOX, classes=[1]))
    assert torch.equal(weights_of(predicted, truth(BOX, BOX, classes=[1, 1])), expected)


def test_a_single_location_and_equal_overlaps_are_no_negatives():
    one = truth([-5, 0, 5, 20], classes=[0])
    assert weights_of(with_iou(0.1, 0.2), one)[:, 0].tolist() == [0, 1]
    assert weights_of(with_iou(0.5, 0.5, 0.5), truth(BOX, classes=[0]))[:, 0].tolist() == [0] * 3
    # None overlaps anything.
    away = torch.tensor([[500.0, 500, 510, 510]] * 3)
    assert weights_of(away, truth(BOX, classes=[0]))[:, 0].tolist() == [0] * 3


def test_a_perfect_box_has_weight_zero_and_the_others_one():
    weights = weights_of(with_iou(0.5, 1.0, 0.99, 1.0), truth(BOX, classes=[2]))
    assert weights[:, 2].tolist() == pytest.approx([1, 0, 1, 0], abs=1e-6)


def test_boxes_without_a_location_change_no_weight():
    empty = truth([1, 1, 3, 3], classes=[0])
    assert (weights_of(with_iou(0.5, 0.2), empty) == 1).all()
    assert (weights_of(with_iou(0.5, 0.2), truth(classes=[])) == 1).all()
    expected = weights_of(with_iou(0.5, 0.2), truth(BOX, classes=[1]))
    found = weights_of(with_iou(0.5, 0.2), truth([1, 1, 3, 3], BOX, classes=[1, 1]))
    assert torch.equal(found, expected)


def test_the_negative_loss_worked_out_by_hand():
    logits, objectness = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[math.log(4)]])
    # Scores 1/2 and 3/4, objectness 4/5: q is 0.4 and 0.6.
    for weights in ((1.0, 1.0), (0.25, 0.5), (0.0, 1.0)):
        terms = [(q * w) ** 2 * -math.log(1 - q * w) for q, w in zip((0.4, 0.6), weights)]
        loss = negative_loss(logits, objectness, torch.tensor([weights]))
        assert loss.item() == pytest.approx(sum(terms), rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("logit", [-200.0, 20.0, 80.0, 200.0])
def test_saturated_scores_give_finite_negative_losses_and_gradients(logit: float, weight: float):
    logits = torch.tensor([[logit]]).requires_grad_()
    objectness = torch.tensor([[logit]]).requires_grad_()
    loss = negative_loss(logits, objectness, torch.tensor([[weight]]))
    gradients = torch.autograd.grad(loss, (logits, objectness))
    assert loss.isfinite() and all(gradient.isfinite().all() for gradient in gradients)
    if weight == 1 and logit in (20, 80):  # 1 - q is 2 exp(-logit), far below float32's 1 - q
        assert loss.item() == pytest.approx(logit - math.log(2), rel=1e-5)
        assert gradients[0].item() == pytest.approx(0.5, rel=1e-3)
