"""Passes without the best predictions of each object."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from dense_kd.diagnostics.errors import DiagnosticsError
from dense_kd.diagnostics.masking import without_best
from helpers.builders import batch, instances, tiny_gfl
from helpers.dense_passes import dense_pass, logits_of

# Four cells of 8 pixels in a row, and boxes whose IoU with the first object is 1, 1/2, 1/4 and 0.
CELLS = torch.tensor([[8.0 * i, 0.0, 8.0 * i + 8, 8.0] for i in range(4)])
OBJECT = [0.0, 0.0, 24.0, 8.0]  # the centres of the first three are in it
BOXES = torch.tensor([OBJECT, [0.0, 0, 12, 8], [0.0, 0, 6, 8], [24.0, 0, 32, 8]])


def row(scores: list, **overrides):
    dense = dense_pass([logits_of([scores])], strides=[8])
    levels = {"priors": [CELLS], "deltas": [(BOXES - CELLS)[None]], "features": [torch.zeros(1)]}
    decode = {"decode": lambda deltas, priors: priors + deltas}
    return dataclasses.replace(dense, **{**levels, **decode, **overrides})


def masked(dense) -> list[int]:
    """Predictions with no score left of any class."""
    return [i for i, row in enumerate(dense.logits[0][0].tolist()) if row == [-math.inf] * 2]


SCORES = [[0.1, 0.9], [0.3, 0.1], [0.4, 0.1], [0.9, 0.9]]
TRUTH = [instances((8, 32), [OBJECT], [0])]


def test_the_best_of_those_in_the_object_go_by_score_and_iou_together():
    # Of class 0: 0.1 * 1, 0.3 / 2 and 0.4 / 4 with equal exponents, whose roots keep the order.
    options = {"iou_exponent": 0.5}
    assert masked(without_best(row(SCORES), TRUTH, 0.1, **options)) == [1]
    assert masked(without_best(row(SCORES), TRUTH, 1 / 3, **options)) == [1]
    assert masked(without_best(row(SCORES), TRUTH, 1.0, **options)) == [0, 1, 2]
    # By the score alone it is the third, by IoU alone the first.
    assert masked(without_best(row(SCORES), TRUTH, 0.1, iou_exponent=0)) == [2]
    assert masked(without_best(row(SCORES), TRUTH, 0.1, iou_exponent=1)) == [0]


def test_the_rest_is_left_and_so_is_the_pass_itself():
    dense = row(SCORES)
    found = without_best(dense, TRUTH, 0.1, iou_exponent=0.5)
    for index in (0, 2, 3):
        assert torch.equal(found.logits[0][0, index], dense.logits[0][0, index])
    assert masked(dense) == [] and masked(without_best(dense, TRUTH, 0.0)) == []


def test_each_object_loses_its_own_and_no_object_nothing():
    both = [instances((8, 32), [OBJECT, [24.0, 0, 32, 8]], [0, 1])]
    assert masked(without_best(row(SCORES), both, 0.1, iou_exponent=0.5)) == [1, 3]
    none = [instances((8, 32), [], [])]
    assert masked(without_best(row(SCORES), none, 1.0)) == []


@pytest.mark.parametrize("options", [{"fraction": 1.5}, {"fraction": 0.5, "iou_exponent": -1}])
def test_what_is_no_share_is_refused(options):
    with pytest.raises(DiagnosticsError, match="expected numbers from 0 to 1"):
        without_best(row(SCORES), TRUTH, **options)


@torch.no_grad()
def test_a_detector_finds_nothing_in_objects_all_of_whose_predictions_are_masked():
    model = tiny_gfl().eval()
    inputs = batch("one empty")
    dense = model.run(model.preprocess_image(inputs))
    truth = model.ground_truth(inputs)
    before = model.inference(dense)
    after = model.inference(without_best(dense, truth, 1.0))
    assert len(before[1]) == len(after[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(before[1].scores, after[1].scores))
    centers = torch.cat(dense.priors)
    centers = (centers[:, :2] + centers[:, 2:]) / 2
    left = without_best(dense, truth, 1.0)
    for box in truth[0].gt_boxes.tensor:
        inside = ((centers > box[:2]) & (centers < box[2:])).all(dim=1)
        assert inside.any() and torch.cat(left.logits, dim=1)[0, inside].isinf().all()
