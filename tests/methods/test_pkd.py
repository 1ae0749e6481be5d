"""PKD against its original implementation, by hand, and in its edge cases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dense_kd import PKD, DistillationError
from dense_kd.methods.pkd import correlation_loss, equal_sizes, standardized
from helpers.builders import assert_close, batch, golden, tiny_fcos
from helpers.feature_cases import adapted, distill, feature_pass, no_objects

DATA = golden("pkd")
LEVELS = range(5)
WEIGHT = golden("pkd")["loss_weight"].item()
# Ten times what was measured: 1.1e-7, 2.1e-7, and 7.3e-8 with a channel of rounding alone.
LOSS_NOISE, GRADIENT_NOISE, CONSTANT_NOISE = 2e-6, 3e-6, 1e-6


def loss_of(
    student: list[Tensor], teacher: list[Tensor], teacher_stride: int = 8, **options
) -> Tensor:
    method = PKD(**{"weight": WEIGHT, **options})
    adapted(method, student[0].shape[1], len(student), teacher_stride=teacher_stride)
    step = no_objects(len(student[0]))
    return method(feature_pass(student), feature_pass(teacher), step)["loss_feature"]


def pyramid(side: str) -> list[Tensor]:
    return [DATA[f"{side}/l{level}"].clone().requires_grad_() for level in LEVELS]


@pytest.mark.parametrize("level", LEVELS)
def test_the_loss_of_a_level_equals_the_original_implementation(level: int):
    omitted = [i for i in LEVELS if i != level]
    loss = loss_of(pyramid("S"), pyramid("T"), omitted_levels=omitted)
    assert_close(loss, DATA[f"loss/l{level}"], LOSS_NOISE)


def test_loss_and_gradients_of_all_levels_equal_the_original_implementation():
    student, teacher = pyramid("S"), pyramid("T")
    loss = loss_of(student, teacher)
    assert_close(loss, DATA["loss_all_levels"], LOSS_NOISE)
    loss.backward()
    for level, feature in enumerate(student):
        assert_close(feature.grad, DATA[f"grad_S/l{level}"], GRADIENT_NOISE, f"level {level}")
    assert all(feature.grad is None for feature in teacher)


def test_loss_and_gradient_equal_those_of_crosskds_code():
    data = golden("losses_crosskd")
    student = data["feat_s"].requires_grad_()
    loss = loss_of([student], [data["feat_t"]], weight=6.0)
    assert_close(loss, data["pkd_lw6/loss"], LOSS_NOISE)
    loss.backward()
    assert_close(student.grad, data["pkd_lw6/grad"], GRADIENT_NOISE)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_maps_of_unequal_size_are_resized_as_in_the_original_implementation(side: str):
    loss = loss_of([DATA["S/l1"]], [DATA["T/l0"]], resized=side, teacher_stride=4)
    expected = DATA["resize_stu/loss" if side == "student" else "resize_tea/loss"]
    size = DATA["T/l0" if side == "student" else "S/l1"].shape
    assert all(x.shape == size for x in equal_sizes(DATA["S/l1"], DATA["T/l0"], side))
    assert_close(loss, expected, LOSS_NOISE)


def test_a_map_to_resize_is_not_chosen_where_none_is_resized():
    with pytest.raises(ValueError, match="resized='teacher' does nothing with equal level strides"):
        adapted(PKD(resized="teacher"), 4, 2)


def test_a_constant_channel_gives_the_original_loss_and_finite_gradients():
    student = DATA["const_channel/S"].requires_grad_()
    assert student.detach().std(dim=(0, 2, 3)).min() < 1e-5
    loss = loss_of([student], [DATA["T/l2"]])
    assert_close(loss, DATA["const_channel/loss"], CONSTANT_NOISE)
    loss.backward()
    assert student.grad.isfinite().all()


def test_the_loss_of_the_reference_page():
    def sequence(factor, phase, amplitude, offset):
        index = torch.arange(120, dtype=torch.float64)
        return offset + amplitude * torch.sin(factor * index + phase)

    student = sequence(0.37, 0.1, 2, 0.5).reshape(2, 3, 4, 5)
    teacher = sequence(0.53, 0.8, 1.5, -0.2).reshape(2, 3, 4, 5)
    assert correlation_loss(student, teacher).item() == pytest.approx(0.96532231, abs=1e-8)


def test_the_loss_is_one_minus_the_correlation_of_each_channel():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 4, 5, generator=generator, dtype=torch.float64)
    correlations = [
        torch.corrcoef(torch.stack((student[:, c].flatten(), teacher[:, c].flatten())))[0, 1]
        for c in range(3)
    ]
    expected = sum((1 - r) * 39 / 40 for r in correlations) / 3  # m = 40 cells
    torch.testing.assert_close(correlation_loss(student, teacher), expected, rtol=1e-5, atol=0)


def test_a_channel_worked_by_hand():
    student = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3)
    teacher = torch.tensor([0.0, 8.0, 4.0]).view(1, 1, 1, 3)
    # -1 0 1 and -1 1 0: squares 0, 1, 1.
    assert standardized([teacher])[0].flatten().tolist() == pytest.approx([-1, 1, 0], abs=1e-5)
    assert correlation_loss(student, teacher).item() == pytest.approx(1 / 3, abs=1e-5)
    assert loss_of([student], [teacher], weight=9.0).item() == pytest.approx(3, abs=1e-4)
    assert correlation_loss(student, -student).item() == pytest.approx(4 / 3, abs=1e-5)


def test_scale_and_offset_of_the_teacher_do_not_matter():
    student, teacher = DATA["S/l0"], DATA["T/l0"]
    torch.testing.assert_close(
        correlation_loss(student, 30 * teacher - 5), correlation_loss(student, teacher)
    )


def test_gradients_go_through_the_statistics_of_the_student():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 1, 2, 2, 3, generator=generator, dtype=torch.float64)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: correlation_loss(x, teacher), student)
    # An offset and a scale of the student change nothing, so no gradient points there.
    gradient = torch.autograd.grad(correlation_loss(student, teacher), student)[0]
    assert gradient.sum(dim=(0, 2, 3)).abs().max() < 1e-6
    assert (gradient * student).sum(dim=(0, 2, 3)).abs().max() < 1e-5


@pytest.mark.parametrize("value", [0.0, 3.3])
def test_a_map_of_one_cell_is_zero_and_has_finite_gradients(value: float):
    student = torch.full((1, 4, 1, 1), value).requires_grad_()
    loss = loss_of([student], [torch.ones(1, 4, 1, 1)])
    loss.backward()
    assert loss == 0 and student.grad.abs().max() == 0


def test_omitted_levels_count_from_either_end():
    student, teacher = pyramid("S"), pyramid("T")
    without = loss_of(student, teacher, omitted_levels=(0, -1))
    expected = sum(DATA[f"loss/l{level}"] for level in (1, 2, 3))
    torch.testing.assert_close(without, expected, rtol=1e-5, atol=0)
    method = adapted(PKD(omitted_levels=(0, -1)), 16, 5, width=24)
    assert len(method.adapters) == 3  # none without gradient


def test_pyramids_of_other_strides_are_compared():
    teacher = tiny_fcos(seed=1, num_levels=5, head_in_features=["p4", "p5", "p6"])
    assert teacher.strides == [16, 32, 64]
    for resized in ("student", "teacher"):
        model = distill(tiny_fcos(), teacher, PKD(resized=resized))
        loss = model(batch())["kd_feature_loss_feature"]
        loss.backward()
        assert loss > 0 and model.student.backbone.fpn_output3.weight.grad.abs().max() > 0


TAPS = {"cls": [("cls", 2)], "bbox": [("bbox", 1)], "both": [("cls", 2), ("bbox", 2)]}


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("channels", [16, 24])
def test_features_of_the_towers_are_compared_where_taps_are_named(taps: str, channels: int):
    teacher = tiny_fcos(seed=1, channels=channels)
    model = distill(tiny_fcos(), teacher, PKD(taps=TAPS[taps], weight=2.0, omitted_levels=[0]))
    method = model.kd.feature
    assert len(method.adapters) == 2 * len(TAPS[taps])
    assert any(True for _ in method.parameters()) == (channels != 16)
    images = model.student.preprocess_image(batch())
    ours = model.student.run(images, method.needs.taps)
    theirs = teacher.run(images, method.needs.taps)
    adapters = iter(method.adapters)
    expected = sum(
        correlation_loss(next(adapters)(ours.taps[tap][level]), theirs.taps[tap][level])
        for tap in TAPS[taps]
        for level in (1, 2)
    )
    loss = method(ours, theirs, no_objects(2))["loss_feature"]
    torch.testing.assert_close(loss, 2 * expected)


def test_the_pyramid_is_what_towers_begin_with():
    found = [
        distill(tiny_fcos(), tiny_fcos(seed=1), PKD(taps=taps))(batch())["kd_feature_loss_feature"]
        for taps in ([], [("cls", 0)])
    ]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("channels", [16, 24])
def test_gradient_goes_to_the_blocks_before_a_tap_and_to_no_others(channels: int):
    teacher = tiny_fcos(seed=1, channels=channels)
    model = distill(tiny_fcos(), teacher, PKD(taps=[("bbox", 1)]))
    model(batch())["kd_feature_loss_feature"].backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    head = {name.split("head.")[1] for name in reached if "head." in name}
    assert head == {f"bbox_subnet.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    assert all(p.grad is not None for p in model.kd.parameters())
    assert all(p.grad is None for p in teacher.parameters())
    assert any("fpn_output3" in name for name in reached)


def test_towers_of_other_strides_are_compared():
    teacher = tiny_fcos(seed=1, num_levels=5, head_in_features=["p4", "p5", "p6"])
    model = distill(tiny_fcos(), teacher, PKD(taps=[("cls", 1)]))
    assert model(batch())["kd_feature_loss_feature"] > 0


def test_taps_that_a_head_does_not_have_are_refused_when_the_distiller_is_built():
    for taps in ([("cls", 3)], [("score", 1)], [("bbox", -1)]):
        with pytest.raises(DistillationError, match="ask for one of these"):
            distill(tiny_fcos(), tiny_fcos(), PKD(taps=taps))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resized": "both"}, "resized='both'"),
        ({"weight": 0.0}, "weight=0.0"),
        ({"taps": "cls"}, "taps='cls': expected pairs"),
        ({"taps": ("cls", 3)}, "expected pairs"),
        ({"taps": [3]}, "expected pairs"),
        ({"taps": [("cls", "3")]}, "expected pairs"),
        ({"taps": [("cls", 1), ["cls", 1]]}, "expected each once"),
    ],
)
def test_what_an_option_cannot_be_is_refused(options, message: str):
    with pytest.raises(ValueError, match=message):
        PKD(**options)


def test_pyramids_and_levels_that_do_not_fit_are_refused_when_the_distiller_is_built():
    message = r"level strides \[8, 16, 32\] and the teacher .*64, 128\]; their number"
    with pytest.raises(DistillationError, match=message):
        distill(tiny_fcos(), tiny_fcos(num_levels=5), PKD())
    with pytest.raises(DistillationError, match="names level 3, but the pyramids have 3"):
        distill(tiny_fcos(), tiny_fcos(), PKD(omitted_levels=(3,)))
    with pytest.raises(DistillationError, match="leaves no level"):
        distill(tiny_fcos(), tiny_fcos(), PKD(omitted_levels=(0, 1, -1)))
