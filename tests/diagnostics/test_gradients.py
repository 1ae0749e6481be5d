"""Gradients of parts of the loss at feature maps, and their shares."""

from __future__ import annotations

import math

import pytest
import torch

from dense_kd import CrossKD, Distiller, MethodSet, Teacher
from dense_kd.diagnostics.errors import DiagnosticsError
from dense_kd.diagnostics.gradients import (
    gradient_maps,
    gradient_norms,
    gradient_shares,
    gradients,
    loss_groups,
    norms_at_places,
)
from helpers.builders import batch, tiny_gfl


def pyramid() -> list[torch.Tensor]:
    """Two levels of one image and two channels: 1 x 2 cells and 1 x 1 cell."""
    levels = [torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]]), torch.tensor([[[[5.0]], [[6.0]]]])]
    return [level.requires_grad_() for level in levels]


def test_terms_are_added_up_by_method_and_the_rest_is_detection():
    losses = {"loss_cls": 1.0, "kd_a_loss_cls": 2.0, "loss_box": 4.0, "kd_a_b_loss_cls": 8.0,
              "kd_a_loss_loc": 16.0}  # fmt: skip
    groups = loss_groups({k: torch.tensor(v) for k, v in losses.items()}, ["a", "a_b"])
    assert {name: value.item() for name, value in groups.items()} == {
        "detection": 5.0, "a": 18.0, "a_b": 8.0,
    }  # fmt: skip


def test_a_term_of_no_method_and_a_method_named_detection_are_refused():
    with pytest.raises(DiagnosticsError, match=r"'kd_b_loss' is of none of the methods \['a'\]"):
        loss_groups({"kd_b_loss": torch.zeros(())}, ["a"])
    with pytest.raises(DiagnosticsError, match="give it another name"):
        loss_groups({}, ["detection"])


def test_norms_shares_and_maps_are_those_worked_by_hand():
    p3, p4 = levels = pyramid()
    # At p3 the first asks (3, 0) at the first cell and (4, 2) at the second, at p4 nothing; the
    # second (2 * 5, 2 * 6) at p4.
    losses = {
        "first": 3 * p3[0, 0, 0, 0] + 4 * p3[0, 0, 0, 1] + 2 * p3[0, 1, 0, 1],
        "second": p4.square().sum(),
    }
    norms = gradient_norms(losses, levels)
    first, second = math.sqrt(9 + 16 + 4), math.sqrt(100 + 144)
    assert norms == pytest.approx({"first": first, "second": second})
    assert gradient_shares(norms) == pytest.approx(
        {"first": first / (first + second), "second": second / (first + second)}
    )
    # A map may be of two places, and a place of no map.
    of_places = norms_at_places(losses, {"both": levels, "p4": [p4], "none": []})
    assert of_places["both"] == norms and of_places["none"] == {"first": 0.0, "second": 0.0}
    assert of_places["p4"] == pytest.approx({"first": 0.0, "second": second})
    maps = gradient_maps(losses, levels)
    torch.testing.assert_close(maps["first"][0], torch.tensor([[[3.0, math.sqrt(20)]]]))
    assert maps["first"][1].tolist() == [[[0.0]]]
    torch.testing.assert_close(maps["second"][1], torch.tensor([[[math.sqrt(244)]]]))
    assert p3.grad is None and p4.grad is None
    sum(losses.values()).backward()  # the graph is still there
    assert p4.grad.flatten().tolist() == [10.0, 12.0]


def test_what_no_loss_touches_and_what_has_no_gradient_get_zeros():
    p3, p4 = pyramid()
    p4 = p4.detach()
    found = gradients(p4.sum(), [p3, p4])
    assert [x.tolist() for x in found] == [[[[[0.0, 0.0]], [[0.0, 0.0]]]], [[[[0.0]], [[0.0]]]]]
    assert gradient_norms({"none": p4.sum()}, [p3]) == {"none": 0.0}
    assert gradient_norms({"none": p4.sum()}, []) == {"none": 0.0}


@pytest.mark.parametrize("norms", [{"a": 0.0, "b": 0.0}, {"a": 1.0, "b": math.inf}])
def test_shares_of_nothing_and_of_infinity_are_not_defined(norms):
    assert all(math.isnan(share) for share in gradient_shares(norms).values())


def test_a_scale_keeps_what_float16_would_round_to_zero():
    level = torch.ones(4, dtype=torch.float16, requires_grad=True)
    loss = level.float().sum() * 1e-8
    assert gradient_norms({"a": loss}, [level]) == {"a": 0.0}
    assert gradient_norms({"a": loss}, [level], 2.0**16) == pytest.approx({"a": 2e-8}, rel=1e-3)


@pytest.mark.parametrize("case", ["usual", "one empty", "all empty"])
def test_crosskd_acts_on_its_tap_and_the_detection_on_the_pyramid_too(case):
    methods = MethodSet(crosskd=CrossKD(depth=1))
    model = Distiller(student=tiny_gfl(), teacher=Teacher(tiny_gfl(seed=1), None), methods=methods)
    kept = []
    model.kd.register_forward_hook(lambda module, args, output: kept.append(args[0]))
    groups = loss_groups(model(batch(case)), ["crosskd"])
    dense = kept[0]
    for maps in (dense.features, dense.taps["cls", 1]):
        found = gradient_maps(groups, maps)
        assert [x.shape for x in found["crosskd"]] == [(2, *m.shape[2:]) for m in maps]
        assert all(x.any() for x in found["crosskd"]) and found["detection"][0].any()
        norms = gradient_norms(groups, maps)
        total = sum(x.square().sum() for x in found["crosskd"]).sqrt().item()
        assert norms["crosskd"] == pytest.approx(total, rel=1e-5)
