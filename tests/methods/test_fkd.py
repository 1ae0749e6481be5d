"""FKD: attention, non-local block and losses by hand, and training steps of several detectors."""

from __future__ import annotations

import math

import pytest
import torch

from dense_kd import FKD, DistillationError
from dense_kd.methods.base.attention import spatial_attention
from dense_kd.methods.base.non_local import NonLocal
from helpers.builders import CASES, batch, nine_anchor_retinanet, tiny_fcos, tiny_gfl
from helpers.feature_cases import distill, make_pass

DETECTORS = {"retinanet": nine_anchor_retinanet, "fcos": tiny_fcos, "gfl": tiny_gfl}
TERMS = ("loss_feature", "loss_channel", "loss_spatial", "loss_nonlocal")


def test_attention_is_a_softmax_of_mean_magnitudes_whose_mean_is_one():
    features = torch.tensor([[[[1.0, -2.0]], [[0.0, 2.0]]]])  # means 0.5 and 2
    first, second = math.exp(1), math.exp(4)
    expected = [2 * first / (first + second), 2 * second / (first + second)]
    assert spatial_attention(features, 0.5).flatten().tolist() == pytest.approx(expected)


def test_the_non_local_block_is_its_formula():
    """One channel, x = (1, 2, 3, 4), pooled by 2: theta, phi and g double it, so that cell i has
    the mean over j of 2 x_i * 2 x_j * 2 x_j = 8 x_i (4 + 16) / 2 = 80 x_i; the norm divides by 2
    here."""
    block = NonLocal(1, pooling=2).eval()
    for convolution in (block.theta, block.phi, block.g):
        torch.nn.init.constant_(convolution.weight, 2.0)
    torch.nn.init.constant_(block.output.weight, 1.0)
    for convolution in (block.theta, block.phi, block.g, block.output):
        torch.nn.init.zeros_(convolution.bias)
    features = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    assert torch.equal(block(features, features), features)  # starts as the identity
    torch.nn.init.constant_(block.norm.weight, 0.5)
    expected = [x + 40 * x for x in (1, 2, 3, 4)]
    assert block(features, features).flatten().tolist() == pytest.approx(expected, rel=1e-4)


def test_losses_are_their_formulas():
    torch.manual_seed(0)
    student, teacher = make_pass(0), make_pass(1)
    weights = {"feature": 2.0, "channel": 3.0, "spatial": 4.0, "nonlocal": 5.0}
    method = FKD(**{f"{name}_weight": weight for name, weight in weights.items()})
    method.make_layers(2, 3, 3)
    found = method(student, teacher, None)
    expected = dict.fromkeys(weights, 0.0)
    for level, s, t in zip(method.levels, student.features, teacher.features):
        m = (spatial_attention(s, 0.5) + spatial_attention(t, 0.5))[:, None] / 2
        p, q = s.mean((2, 3)), s.mean(1)[:, None]
        expected["feature"] += ((t - level.feature(s)) ** 2 * m).sum().sqrt()
        expected["channel"] += ((t.mean((2, 3)) - level.channel(p)) ** 2).sum().sqrt()
        expected["spatial"] += ((t.mean(1) - level.spatial(q)[:, 0]) ** 2).sum().sqrt()
        # the blocks are identities at the start
        expected["nonlocal"] += ((t - level.relation(s)) ** 2).sum().sqrt()
    for name, weight in weights.items():
        value = weight * expected[name].item()
        assert found[f"loss_{name}"].item() == pytest.approx(value, rel=1e-5), name


def test_a_perfect_student_has_no_loss_and_finite_gradients():
    student = make_pass(0)
    method = FKD()
    method.make_layers(2, 3, 3)
    with torch.no_grad():
        for level in method.levels:
            for adapter in (level.feature, level.relation):
                adapter.weight.copy_(torch.eye(3)[..., None, None])
                adapter.bias.zero_()
    for feature in student.features:
        feature.requires_grad_()
    found = method(student, make_pass(0), None)
    assert found["loss_feature"] == found["loss_nonlocal"] == 0
    (found["loss_feature"] + found["loss_nonlocal"]).backward()
    assert all(feature.grad.abs().max() == 0 for feature in student.features)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"channel_weight": 0.0}, "channel_weight=0.0"), ({"temperature": 0}, "temperature=0: exp")],
)
def test_bad_options_say_what_is_expected(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        FKD(**options)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("case", CASES)
def test_a_step_trains_backbone_and_layers_and_never_the_teacher(name: str, case: str):
    student, teacher = DETECTORS[name](seed=0), DETECTORS[name](seed=1, channels=24)
    model = distill(student, teacher, fkd=FKD())
    found = {k: v for k, v in model(batch(case)).items() if k.startswith("kd_")}
    assert list(found) == [f"kd_fkd_{term}" for term in TERMS]
    assert all(loss > 0 for loss in found.values())
    sum(found.values()).backward()
    for key, parameter in student.named_parameters():
        if parameter.requires_grad:
            assert (parameter.grad is None) == key.startswith("head."), key
    assert all(p.grad.isfinite().all() for p in model.kd.parameters())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    extra = set(model.state_dict()) - set(student.state_dict())
    assert extra and all(key.startswith("kd.fkd.") for key in extra)


def test_other_levels_are_refused():
    with pytest.raises(DistillationError, match="student has level strides"):
        distill(tiny_fcos(), tiny_fcos(num_levels=5), fkd=FKD())
