"""Codes of boxes as distances, by hand and against detectron2 main."""

from __future__ import annotations

import pytest
import torch
from builders import assert_close

from dense_kd import compat
from dense_kd.detectors import DistanceCoder
from dense_kd.detectors.box_coders import centerness


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
