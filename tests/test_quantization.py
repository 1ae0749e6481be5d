"""A student computes as if in 8-bit integers, and is saved as if it did not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dense_kd import BCKD, Distiller, MethodSet, Teacher
from dense_kd.quantization import FakeQuantization, rounded_weight
from helpers.builders import batch, tiny_gfl


def test_weights_have_a_scale_for_each_output_channel():
    weight = torch.tensor([[1.0, 0.5, -0.25], [100.0, 50.2, 0.1], [0.0, 0.0, 0.0]])
    rounded = rounded_weight(weight)
    for row, original in zip(rounded[:2], weight):
        steps = row / (original.abs().max() / 127)
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
        assert (row - original).abs().max() <= original.abs().max() / 254 * 1.001
    assert rounded[2].equal(weight[2])


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        return self.last(self.first(x))


@pytest.fixture
def layer():
    model = Layers()
    return model, FakeQuantization(model)


def test_a_convolution_sees_rounded_weights_and_maps(layer):
    model, quantization = layer
    x = torch.randn(2, 3, 8, 8)
    seen = []
    model.first.register_forward_pre_hook(lambda m, inputs: seen.append((inputs[0], m.weight)))
    model(x)
    (rounded, weight), low, high = seen[0], x.min(), x.max()
    assert weight.equal(rounded_weight(model.first.weight)) and not weight.equal(model.first.weight)
    step = (high - low) / 255
    assert 0 < (rounded - x).abs().max() <= step * 0.51
    assert rounded.unique().numel() <= 256
    assert quantization.lowest.tolist() == [pytest.approx(low.item())]  # of one map: not rounded


def test_ranges_move_in_training_alone(layer):
    model, quantization = layer
    model(torch.rand(1, 3, 8, 8))
    before = quantization.highest.clone()
    model(torch.full((1, 3, 8, 8), 101.0))
    torch.testing.assert_close(quantization.highest, before + 0.01 * (101 - before))
    kept = quantization.highest.clone()
    model.eval()(torch.full((1, 3, 8, 8), 1000.0))
    assert quantization.highest.equal(kept)


@pytest.mark.parametrize("training", [True, False])
def test_a_pass_without_gradients_has_the_range_of_its_maps_where_none_is_known(layer, training):
    model, quantization = layer
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():  # as positives are counted before the first step, or in an evaluation
        found = model.train(training)(x)
    assert quantization.highest.tolist() == [-1.0]
    torch.testing.assert_close(found, model.train()(x).detach())


def test_a_student_that_was_not_trained_yet_detects_nearly_as_without_rounding():
    model = tiny_gfl().eval()
    images = model.preprocess_image(batch())
    with torch.no_grad():
        plain = torch.cat([each.flatten() for each in model.run(images).logits])
        FakeQuantization(model)
        rounded = torch.cat([each.flatten() for each in model.eval().run(images).logits])
    assert 0 < (rounded - plain).abs().max() < plain.std()


def test_gradients_are_those_of_what_was_not_rounded_within_the_range():
    model = Layers()
    FakeQuantization(model)
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    model.first(x).sum().backward()
    expected = rounded_weight(model.first.weight).sum(dim=(0, 2, 3))  # away from the border
    torch.testing.assert_close(x.grad[0, :, 4, 4], expected.detach())
    assert model.first.weight.grad.isfinite().all() and model.first.weight.grad.abs().sum() > 0


def test_the_state_dict_and_the_parameters_are_those_of_the_detector():
    model = tiny_gfl()
    before, parameters = copy.deepcopy(model.state_dict()), [*model.parameters()]
    names = [name for name, _ in model.named_parameters()]
    FakeQuantization(model)
    model.train()(batch())
    assert list(model.state_dict()) == list(before)
    assert [name for name, _ in model.named_parameters()] == names
    assert all(a is b for a, b in zip(model.parameters(), parameters))


def test_weights_are_put_back_where_a_layer_fails(layer):
    model, _ = layer
    weight = model.first.weight
    with pytest.raises(RuntimeError):
        model(torch.randn(1, 5, 8, 8))
    assert model.first.weight is weight


def test_a_second_time_is_refused(layer):
    with pytest.raises(ValueError, match="is quantised already"):
        FakeQuantization(layer[0])


def test_a_distilled_student_learns_and_its_teacher_is_not_rounded():
    model = Distiller(
        student=tiny_gfl(seed=1),
        teacher=Teacher(tiny_gfl(seed=2), None),
        methods=MethodSet(b=BCKD()),
    )
    FakeQuantization(model.student)
    losses = model.train()(batch())
    torch.stack([*losses.values()]).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.student.parameters())
    assert not any(isinstance(m, FakeQuantization) for m in model.teacher.model.modules())
