"""How gradients are compared with stored ones: what rounding decides, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers.gradients import Nudge, assert_gradients_close

TOLERANCE = 1e-5


def gradients(beside_zero: float, weight: float = 1.0) -> dict[str, Tensor]:
    """Of two units, one of whose inputs is a rounding away from zero."""
    return compute(lambda x: x, beside_zero, weight)


def compute(nudge: Nudge, beside_zero: float, weight: float = 1.0) -> dict[str, Tensor]:
    inputs = nudge(torch.tensor([1.0, 2.0])).requires_grad_()
    units = torch.stack([inputs[1] - 2 * inputs[0] + beside_zero, inputs.sum()]).relu()
    return {"inputs": torch.autograd.grad((units * torch.tensor([1.0, weight])).sum(), inputs)[0]}


def test_a_unit_beside_zero_may_be_open_or_closed():
    opened, closed = gradients(1e-9), gradients(-1e-9)
    assert not torch.equal(opened["inputs"], closed["inputs"])
    assert_gradients_close(lambda nudge: compute(nudge, -1e-9), opened, TOLERANCE)
    assert_gradients_close(lambda nudge: compute(nudge, 1e-9), closed, TOLERANCE)


def test_a_unit_that_is_open_has_to_be_open():
    with pytest.raises(AssertionError, match=r"inputs: off by .* not between .* 16 nudged"):
        assert_gradients_close(lambda nudge: compute(nudge, 0.1), gradients(-0.1), TOLERANCE)


def test_a_gradient_that_is_off_everywhere_is_not_accepted():
    wrong = gradients(1e-9, weight=1.01)
    with pytest.raises(AssertionError, match="inputs: off by"):
        assert_gradients_close(lambda nudge: compute(nudge, 1e-9), wrong, TOLERANCE)


def test_a_gradient_that_is_equal_is_computed_once():
    calls = []

    def counted(nudge: Nudge) -> dict[str, Tensor]:
        calls.append(nudge)
        return compute(nudge, 1.0)

    assert_gradients_close(counted, gradients(1.0), TOLERANCE)
    assert len(calls) == 1


def test_nothing_to_compare_is_an_error():
    with pytest.raises(AssertionError, match="nothing to compare"):
        assert_gradients_close(lambda nudge: {}, {}, TOLERANCE)
