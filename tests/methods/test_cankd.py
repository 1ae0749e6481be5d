"""CanKD against its original implementation, by hand, and in its edge cases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dense_kd import CanKD, DistillationError
from dense_kd.methods.base.non_local import NonLocal
from helpers.builders import assert_close, golden, tiny_fcos
from helpers.feature_cases import adapted, distill, feature_pass, no_objects

DATA = golden("cankd")
# Ten times what was measured: 2e-7 and 5e-7.
LOSS_NOISE, GRADIENT_NOISE = 2e-6, 5e-6
NAMES = {
    "att.theta": "theta",
    "att.phi.0": "phi",
    "g.0": "g",
    "W.0": "output",
    "W.1": "norm",
}
"""{part of the original's block: ours}"""


def trained_block(channels: int) -> NonLocal:
    """One whose norm does not stand at its start."""
    torch.manual_seed(0)
    block = NonLocal(channels, pooling=2, reduction=2)
    torch.nn.init.uniform_(block.norm.weight, 0.5, 1.5)
    return block


def loss_of(method: CanKD, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    passes = feature_pass(student), feature_pass(teacher)
    return method(*passes, no_objects(len(student[0])))["loss_feature"]


@pytest.mark.parametrize("case", ["odd", "even"])
def test_loss_and_gradients_equal_the_original_implementation(case: str):
    student = DATA[f"{case}/S"].requires_grad_()
    teacher = DATA[f"{case}/T"].requires_grad_()
    method = adapted(CanKD(weight=10.0), student.shape[1], 1)
    state, gradients = {}, {}
    for theirs, ours in NAMES.items():
        for kind in ("weight", "bias"):
            state[f"{ours}.{kind}"] = DATA[f"{case}/param/non_local_att.{theirs}.{kind}"]
            gradients[f"{ours}.{kind}"] = DATA[f"{case}/grad/non_local_att.{theirs}.{kind}"]
    method.blocks[0].load_state_dict(state, strict=False)
    loss = loss_of(method, [student], [teacher])
    assert_close(loss, DATA[f"{case}/loss"], LOSS_NOISE)
    loss.backward()
    assert_close(student.grad, DATA[f"{case}/grad_S"], GRADIENT_NOISE)
    assert teacher.grad is None
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for name, parameter in method.blocks[0].named_parameters():
        # Norms take off what biases add, but for rounding.
        assert_close(parameter.grad, gradients[name], GRADIENT_NOISE, name, scale=largest)


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 4), (3, 1)])
def test_the_linear_form_is_the_attention_of_all_cells_to_all_cells(size: tuple[int, int]):
    block = trained_block(6).double()
    ours, theirs = torch.randn(2, 2, 6, *size, dtype=torch.double)
    window = [min(2, side) for side in size]
    query = block.theta(ours).flatten(2)
    key = torch.max_pool2d(block.phi(theirs), window).flatten(2)
    value = torch.max_pool2d(block.g(theirs), window).flatten(2)
    pairs = query.transpose(1, 2) @ key / key.shape[2]  # (N, P, P')
    attended = (pairs @ value.transpose(1, 2)).transpose(1, 2).view(2, 3, *size)
    expected = ours + block.norm(block.output(attended))
    assert_close(block(ours, theirs), expected, 1e-13)
    assert not torch.allclose(expected, ours)


def test_it_starts_as_a_comparison_of_normalised_maps_worked_by_hand():
    """(1, 3) has the mean 2 and the deviation 1, (4, 0) the mean 2 and 2: -1 and 1 against 1 and
    -1, so that each cell differs by 2."""
    student, teacher = (torch.tensor(x).view(1, 1, 1, 2) for x in ([1.0, 3.0], [4.0, 0.0]))
    method = adapted(CanKD(weight=3.0), 1, 1)
    assert loss_of(method, [student], [teacher]).item() == pytest.approx(3 / 2 * 4, rel=1e-4)
    assert loss_of(method, [student], [5 * student - 7]).item() == pytest.approx(0, abs=1e-8)


def test_the_losses_of_levels_are_summed_and_omitted_ones_left_out():
    maps = [torch.randn(2, 4, side, side) for side in (8, 4, 2)]
    others = [torch.randn_like(level) for level in maps]
    whole = loss_of(adapted(CanKD(), 4, 3), maps, others)
    each = [loss_of(adapted(CanKD(), 4, 1), [s], [t]) for s, t in zip(maps, others)]
    assert_close(whole, sum(each))
    method = adapted(CanKD(omitted_levels=(0, -1)), 4, 3)
    assert_close(loss_of(method, maps, others), each[1])
    assert len(method.blocks) == len(method.adapters) == 1


def test_a_level_of_one_cell_has_no_loss_and_no_gradient():
    student = torch.randn(1, 4, 1, 1).requires_grad_()
    method = adapted(CanKD(), 4, 1)
    method.blocks[0] = trained_block(4)
    loss = loss_of(method, [student], [torch.randn(1, 4, 1, 1)])
    loss.backward()
    # 0, but for the rounding of torch 2.1.
    assert loss < 1e-8 and student.grad.abs().max() < 1e-4
    assert all(p.grad.abs().max() < 1e-4 for p in method.parameters())


def test_there_is_a_block_of_the_teachers_width_for_every_level():
    model = distill(tiny_fcos(), tiny_fcos(channels=24), CanKD())
    shapes = {k: tuple(v.shape) for k, v in model.kd.feature.named_parameters()}
    for level in range(3):
        for name, shape in {
            f"adapters.{level}": (24, 16, 1, 1),
            f"blocks.{level}.theta": (12, 24, 1, 1),
            f"blocks.{level}.phi": (12, 24, 1, 1),
            f"blocks.{level}.g": (12, 24, 1, 1),
            f"blocks.{level}.output": (24, 12, 1, 1),
            f"blocks.{level}.norm": (24,),
        }.items():
            assert shapes.pop(f"{name}.weight") == shape
            assert shapes.pop(f"{name}.bias") == shape[:1]
    assert not shapes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, "weight=0.0"),
        ({"omitted_levels": -1}, "omitted_levels=-1: expected numbers of levels"),
    ],
)
def test_what_an_option_cannot_be_is_refused(options, message: str):
    with pytest.raises(ValueError, match=message):
        CanKD(**options)


def test_levels_that_are_not_there_or_of_other_strides_are_refused_when_it_is_built():
    with pytest.raises(DistillationError, match=r"names level 3, but the pyramids have 3"):
        distill(tiny_fcos(), tiny_fcos(), CanKD(omitted_levels=(3,)))
    with pytest.raises(DistillationError, match="leaves no level to compare"):
        distill(tiny_fcos(), tiny_fcos(), CanKD(omitted_levels=(0, 1, 2)))
    teacher = tiny_fcos(num_levels=5, head_in_features=["p4", "p5", "p6"])
    with pytest.raises(DistillationError, match=r"strides \[8, 16, 32\] .* \[16, 32, 64\]"):
        distill(tiny_fcos(), teacher, CanKD())
