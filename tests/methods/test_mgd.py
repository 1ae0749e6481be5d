"""MGD against its original implementation, by hand, and in its edge cases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dense_kd import MGD, DistillationError
from helpers.builders import assert_close, batch, golden, tiny_fcos
from helpers.feature_cases import adapted, distill, feature_pass, no_objects
from helpers.gradients import Nudge, assert_gradients_close

DATA = golden("mgd")
# Ten times what was measured: 0 (of one rounding, 1e-7, here) and 2.5e-7.
LOSS_NOISE, GRADIENT_NOISE = 1e-6, 3e-6


class Injected(MGD):
    """MGD with random numbers that are given."""

    def __init__(self, random: Tensor, **options):
        super().__init__(**options)
        self.random = random

    def draw(self, feature: Tensor) -> Tensor:
        assert self.random.shape == super().draw(feature).shape
        return self.random


def original(case: str) -> tuple[Injected, Tensor, Tensor]:
    """The method with parameters and random numbers of ``case``, and the features of both."""
    data = {k[len(case) + 1 :]: v for k, v in DATA.items() if k.startswith(case)}
    student, teacher = data["S"].requires_grad_(), data["T"].requires_grad_()
    method = Injected(
        data["rand"], weight=data["alpha_mgd"].item(), masked_ratio=data["lambda_mgd"].item()
    )
    adapted(method, student.shape[1], 1, teacher.shape[1])
    names = {"align": "adapters.0", "generation": "generators.0"}
    state = {}
    for key, value in data.items():
        if key.startswith("param/"):
            module, rest = key[len("param/") :].split(".", 1)
            state[f"{names[module]}.{rest}"] = value
    method.load_state_dict(state, strict=True)
    return method, student, teacher


def loss_of(method: MGD, student: Tensor, teacher: Tensor) -> Tensor:
    passes = feature_pass([student]), feature_pass([teacher])
    return method(*passes, no_objects(len(student)))["loss_feature"]


@pytest.mark.parametrize("case", ["same", "align"])
def test_loss_mask_and_gradient_equal_the_original_implementation(case: str):
    method, student, teacher = original(case)
    assert torch.equal(method.kept(method.random), DATA[f"{case}/mask_keep"])
    loss = loss_of(method, student, teacher)
    assert_close(loss, DATA[f"{case}/loss"], LOSS_NOISE)
    loss.backward()
    assert teacher.grad is None

    def gradients(nudge: Nudge) -> dict[str, Tensor]:
        nudged = nudge(student.detach()).requires_grad_()
        return {"student": torch.autograd.grad(loss_of(method, nudged, teacher), nudged)[0]}

    assert_gradients_close(gradients, {"student": DATA[f"{case}/grad_S"]}, GRADIENT_NOISE)
    for name, parameter in method.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def identity(method: MGD) -> MGD:
    """Generators that give what they get, where that is not negative."""
    for generator in method.generators:
        for conv in (generator[0], generator[2]):
            torch.nn.init.dirac_(conv.weight)
            torch.nn.init.zeros_(conv.bias)
    return method


def test_the_loss_worked_by_hand():
    random = torch.tensor([0.1, 0.5, 0.9, 0.3]).view(1, 1, 2, 2)
    method = identity(adapted(Injected(random, weight=0.5, masked_ratio=0.5), 2, 1))
    student = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]).view(1, 2, 2, 2)
    teacher = torch.ones(1, 2, 2, 2)
    # Kept are 1, 2 and 4 of the first channel, 5, 6 and 8 of the second; 3 and 7 become 0.
    squares = 0 + 1 + 1 + 9 + 16 + 25 + 1 + 49
    assert loss_of(method, student, teacher).item() == pytest.approx(0.5 * squares)
    # A mean over images, a sum over everything else.
    method.random = random.expand(2, 1, 2, 2)
    double = loss_of(method, torch.cat((student, student)), torch.cat((teacher, teacher)))
    assert double.item() == pytest.approx(0.5 * squares)


def test_the_losses_of_levels_are_summed():
    feature = torch.rand(2, 3, 4, 5)
    of_level = loss_of(identity(adapted(MGD(masked_ratio=0.0), 3, 1)), feature, 0 * feature)
    method = identity(adapted(MGD(masked_ratio=0.0), 3, 3))
    passes = feature_pass([feature, 2 * feature, feature]), feature_pass([0 * feature] * 3)
    found = method(*passes, no_objects(2))["loss_feature"]
    assert_close(found, (1 + 4 + 1) * of_level)


def test_a_masked_cell_gives_the_student_no_gradient():
    random = torch.tensor([0.1, 0.5, 0.9, 0.3]).view(1, 1, 2, 2)
    method = identity(adapted(Injected(random, masked_ratio=0.5), 2, 1))
    student = torch.full((1, 2, 2, 2), 3.0).requires_grad_()
    loss_of(method, student, torch.ones(1, 2, 2, 2)).backward()
    assert (student.grad[0, :, 1, 0] == 0).all() and (student.grad != 0).sum() == 6


def test_an_identical_teacher_gives_no_loss_where_the_generator_is_the_identity():
    method = identity(adapted(MGD(masked_ratio=0.0), 8, 1))
    feature = torch.rand(2, 8, 5, 6)
    assert loss_of(method, feature, feature.clone()) == 0
    assert loss_of(identity(adapted(MGD(), 8, 1)), feature, feature) > 0  # the mask


def test_masks_have_the_ratio_are_equal_for_channels_and_drawn_anew():
    method = adapted(MGD(masked_ratio=0.65), 4, 1)
    feature = torch.zeros(2, 4, 100, 100)
    first, second = method.kept(method.draw(feature)), method.kept(method.draw(feature))
    assert first.shape == (2, 1, 100, 100) and set(first.unique().tolist()) == {0.0, 1.0}
    assert first.mean().item() == pytest.approx(0.35, abs=0.02)
    assert not torch.equal(first, second) and not torch.equal(first[0], first[1])


def test_two_iterations_of_one_batch_have_different_losses_and_a_seed_repeats_them():
    model = distill(tiny_fcos(), tiny_fcos(seed=1), MGD())
    losses = []
    for seed in (0, None, 0):
        if seed is not None:
            torch.manual_seed(seed)
        losses.append(model(batch())["kd_feature_loss_feature"].item())
    assert losses[0] != losses[1] and losses[0] == losses[2]


def test_there_is_a_generator_of_the_teachers_width_for_every_level():
    model = distill(tiny_fcos(), tiny_fcos(channels=24), MGD())
    shapes = {k: tuple(v.shape) for k, v in model.kd.feature.named_parameters()}
    for level in range(3):
        for conv in (0, 2):
            assert shapes.pop(f"generators.{level}.{conv}.weight") == (24, 24, 3, 3)
            assert shapes.pop(f"generators.{level}.{conv}.bias") == (24,)
        assert shapes.pop(f"adapters.{level}.weight") == (24, 16, 1, 1)
        assert shapes.pop(f"adapters.{level}.bias") == (24,)
    assert not shapes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, "weight=0.0"),
        ({"masked_ratio": 1.0}, "masked_ratio=1.0"),
        ({"masked_ratio": -0.1}, "masked_ratio=-0.1"),
    ],
)
def test_what_an_option_cannot_be_is_refused(options, message: str):
    with pytest.raises(ValueError, match=message):
        MGD(**options)


def test_pyramids_of_other_strides_are_refused_when_the_distiller_is_built():
    teacher = tiny_fcos(num_levels=5, head_in_features=["p4", "p5", "p6"])
    with pytest.raises(DistillationError, match=r"strides \[8, 16, 32\] .* \[16, 32, 64\]"):
        distill(tiny_fcos(), teacher, MGD())
