"""Codes of boxes, by hand and against detectron2's."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform

from dense_kd import compat
from dense_kd.detectors import DeltaCoder, DistanceCoder
from dense_kd.detectors.boxes.coders import centerness
from helpers.builders import assert_close, tiny_atss


def test_sizes_are_bounded_from_both_sides():
    anchors = torch.tensor([[100.0, 200.0, 260.0, 520.0]] * 2)  # 160 x 320
    deltas = torch.tensor([[0.5, 0.0, -30.0, -30.0], [0.0, 0.0, 30.0, 0.0]])
    small, large = DeltaCoder().apply_deltas(deltas, anchors)
    # The smallest box is 16 / 1000 of the anchor: 2.56 x 5.12 around (180 + 0.5 * 160, 360).
    assert small.tolist() == pytest.approx([258.72, 357.44, 261.28, 362.56], abs=1e-3)
    assert large.tolist() == pytest.approx([180 - 5000, 200, 180 + 5000, 520], rel=1e-5)
    without = Box2BoxTransform((1.0, 1.0, 1.0, 1.0)).apply_deltas(deltas, anchors)
    assert (without[0, 2:] - without[0, :2]).max() < 1e-4


def test_the_bound_holds_for_the_logarithm_of_the_size_whatever_the_weights():
    anchor = torch.tensor([[0.0, 0.0, 1000.0, 1000.0]])
    coder = DeltaCoder(weights=(10.0, 10.0, 5.0, 2.0))
    for delta in (-30.0, -1000.0):
        box = coder.apply_deltas(torch.tensor([[0.0, 0.0, delta, delta]]), anchor)[0]
        assert (box[2] - box[0]).item() == pytest.approx(max(1000 * math.exp(delta / 5), 16), 1e-4)
        assert (box[3] - box[1]).item() == pytest.approx(16, 1e-4)


def test_a_size_beyond_the_bound_has_no_gradient():
    deltas = torch.tensor([[0.0, 0.0, -30.0, -1.0]], requires_grad=True)
    anchor = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    box = DeltaCoder().apply_deltas(deltas, anchor)
    (box[:, 2:] - box[:, :2]).sum().backward()
    assert deltas.grad[0, 2] == 0 and deltas.grad[0, 3] > 0


def test_between_the_bounds_deltas_are_detectron2s():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(50, 2, generator=generator) * 50
    anchors = torch.cat((low, low + 16), dim=1)
    boxes = torch.cat((low - 5, low + 40 * torch.rand(50, 2, generator=generator)), dim=1)
    weights = (10.0, 10.0, 5.0, 5.0)
    deltas = 4 * torch.randn(50, 4, generator=generator)
    ours, stock = DeltaCoder(weights), Box2BoxTransform(weights)
    assert torch.equal(ours.get_deltas(anchors, boxes), stock.get_deltas(anchors, boxes))
    assert torch.equal(ours.apply_deltas(deltas, anchors), stock.apply_deltas(deltas, anchors))


def test_atss_bounds_sizes_from_both_sides_by_default():
    model = tiny_atss()
    assert type(model.box2box_transform) is DeltaCoder
    anchor = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
    box = model.decode(torch.tensor([[0.0, 0.0, -30.0, -30.0]]), anchor)
    # exp(-30 * 0.2) = 0.0025 is below the bound 0.016.
    assert (box[0, 2] - box[0, 0]).item() == pytest.approx(64 * 0.016, 1e-4)


def test_distances_are_from_the_center_to_the_sides():
    prior, box = torch.tensor([[8.0, 8, 24, 24]]), torch.tensor([[0.0, 4, 48, 40]])
    pixels = DistanceCoder(normalize_by_size=False, activation="identity")
    strides = DistanceCoder()
    assert pixels.get_deltas(prior, box).tolist() == [[16, 12, 32, 24]]
    assert strides.get_deltas(prior, box).tolist() == [[1, 0.75, 2, 1.5]]
    assert pixels.apply_deltas(pixels.get_deltas(prior, box), prior).tolist() == box.tolist()
    assert strides.apply_deltas(strides.get_deltas(prior, box), prior).tolist() == box.tolist()


def test_activations_make_distances_positive():
    prior = torch.tensor([[8.0, 8, 24, 24]])
    codes = torch.tensor([[-1.0, 0.0, 1.0, 0.5]])
    assert DistanceCoder().apply_deltas(codes, prior).tolist() == [[16, 16, 32, 24]]
    boxes = DistanceCoder(activation="exp", normalize_by_size=False).apply_deltas(codes, prior)
    distances = codes.exp()[0].tolist()
    expected = [16 - distances[0], 15, 16 + distances[2], 16 + distances[3]]
    assert boxes[0].tolist() == pytest.approx(expected)


def test_distances_are_in_strides_for_priors_of_several_strides():
    anchor, box = torch.tensor([[-16.0, -16, 48, 48]]), torch.tensor([[0.0, 4, 48, 40]])
    coder = DistanceCoder(activation="identity", prior_scale=8)  # a stride of 8 pixels
    assert coder.get_deltas(anchor, box).tolist() == [[2, 1.5, 4, 3]]
    assert coder.apply_deltas(coder.get_deltas(anchor, box), anchor).tolist() == box.tolist()


def test_distances_are_in_widths_and_heights_of_priors_that_are_no_squares():
    prior, box = torch.tensor([[8.0, 16, 24, 24]]), torch.tensor([[0.0, 16, 48, 28]])  # 16 x 8
    coder = DistanceCoder(activation="identity")
    assert coder.get_deltas(prior, box).tolist() == [[1, 0.5, 2, 1]]
    assert coder.apply_deltas(coder.get_deltas(prior, box), prior).tolist() == box.tolist()


def test_centerness_is_the_root_of_the_ratios_of_opposite_distances():
    priors = torch.tensor([[8.0, 8, 24, 24], [8, 8, 24, 24], [90, 90, 99, 99]])
    boxes = torch.tensor([[8.0, 8, 24, 24], [12, 8, 32, 24], [0, 0, 10, 10]])
    inside = torch.tensor([True, True, False])
    assert centerness(priors, boxes, inside).tolist() == pytest.approx([1, 0.5, 0])
    assert centerness(priors, boxes[None], inside[None]).shape == (1, 3)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="activation='gelu'.*relu.*exp.*identity"):
        DistanceCoder(activation="gelu")


@pytest.mark.skipif(
    compat.Box2BoxTransformLinear is None, reason="detectron2 0.5 has no Box2BoxTransformLinear"
)
def test_distance_coder_equals_detectron2s_linear_transform():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(20, 2, generator=generator) * 50
    priors = torch.cat((low, low + 16), dim=1)
    boxes = torch.cat((low - 5, low + 40 * torch.rand(20, 2, generator=generator)), dim=1)
    deltas = torch.randn(20, 4, generator=generator)
    for normalize in (True, False):
        ours = DistanceCoder(normalize_by_size=normalize)
        stock = compat.Box2BoxTransformLinear(normalize_by_size=normalize)
        assert_close(ours.get_deltas(priors, boxes), stock.get_deltas(priors, boxes), 1e-6)
        assert_close(ours.apply_deltas(deltas, priors), stock.apply_deltas(deltas, priors), 1e-6)
