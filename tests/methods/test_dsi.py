"""DSI by hand, what it refuses, and what becomes of its network."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from dense_kd import BCKD, DSI, DistillationError
from dense_kd.checkpoint import CheckpointError
from helpers.builders import CASES, batch, tiny_fcos, tiny_gfl
from helpers.feature_cases import distill
from helpers.feature_networks import OneMap, feature_teacher


class Fixed(OneMap):
    """Gives one map, whatever it sees."""

    width = 2

    def forward(self, images):
        rows, columns = (side // 32 for side in images.shape[-2:])
        found = torch.zeros(len(images), 2, rows, columns)
        found[:, 0] = 3.0
        return found


def test_the_loss_worked_by_hand():
    """The network gives (3, 0) everywhere, the convolution (1, 1): a cosine of 1 / sqrt(2)."""
    model = distill(tiny_gfl(), tiny_gfl(seed=1), DSI(teacher=feature_teacher(Fixed()), weight=5.0))
    projector = model.kd.feature.projector
    torch.nn.init.zeros_(projector.weight)
    torch.nn.init.ones_(projector.bias)
    found = model(batch())["kd_feature_loss_semantic"].item()
    assert found == pytest.approx(5 * (1 - 1 / math.sqrt(2)), rel=1e-5)
    torch.nn.init.constant_(projector.bias, -1.0)
    found = model(batch())["kd_feature_loss_semantic"].item()
    assert found == pytest.approx(5 * (1 + 1 / math.sqrt(2)), rel=1e-5)


def test_a_map_of_another_size_is_resized_to_the_level():
    torch.manual_seed(0)
    method = DSI(teacher=feature_teacher())  # eight pixels per cell
    model = distill(tiny_gfl(), tiny_gfl(seed=1), method)
    seen = []
    model.kd.register_forward_pre_hook(lambda _, given: seen.append(given))
    found = model(batch())["kd_feature_loss_semantic"]
    student, _, step = seen[0]
    theirs = method.teacher.run(step.images, model.student.image_input)
    level = student.features[2]
    assert theirs.shape[-1] == 4 * level.shape[-1]
    resized = torch.nn.functional.interpolate(theirs, level.shape[-2:], mode="bilinear")
    cosine = torch.cosine_similarity(model.kd.feature.projector(level), resized)
    assert found.item() == pytest.approx((1 - cosine).mean().item(), rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_step_beside_another_method_trains_the_student_and_the_projector_alone(case: str):
    network = OneMap()
    methods = {"bckd": BCKD(), "dsi": DSI(teacher=feature_teacher(network), stride=16)}
    model = distill(tiny_gfl(), tiny_gfl(seed=1), **methods)
    before = copy.deepcopy(network.state_dict())
    model(batch(case))["kd_dsi_loss_semantic"].backward()
    backbone = dict(model.student.backbone.named_parameters())
    assert backbone["fpn_output4.weight"].grad.abs().max() > 0
    assert backbone["fpn_output3.weight"].grad is None
    assert all(p.grad.abs().max() > 0 for p in model.kd.parameters())
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    extra = set(model.state_dict()) - set(model.student.state_dict())
    assert extra == {"kd.dsi.projector.weight", "kd.dsi.projector.bias"}
    assert not any(module is network for module in model.modules())
    assert copy.deepcopy(model).kd.dsi.teacher is model.kd.dsi.teacher


def test_its_file_is_read_before_the_first_step_and_a_wrong_one_stops_it(tmp_path):
    torch.save(OneMap(seed=3).state_dict(), tmp_path / "network.pth")
    network = OneMap()
    teacher = feature_teacher(network, weights=str(tmp_path / "network.pth"))
    model = distill(tiny_gfl(), tiny_gfl(seed=1), DSI(teacher=teacher))
    model.load_teacher()
    assert torch.equal(network.conv.weight, OneMap(seed=3).conv.weight)
    missing = feature_teacher(weights=str(tmp_path / "none.pth"))
    model = distill(tiny_gfl(), tiny_gfl(seed=1), DSI(teacher=missing))
    with pytest.raises(CheckpointError, match=r"none\.pth"):
        model(batch())


def test_a_network_that_gives_no_numbers_gives_no_loss():
    network = OneMap()
    network.conv.bias.data[0] = torch.nan
    model = distill(tiny_gfl(), tiny_gfl(seed=1), DSI(teacher=feature_teacher(network)))
    assert model(batch())["kd_feature_loss_semantic"].isnan()


def test_what_it_cannot_use_is_refused_when_the_distiller_is_built():
    with pytest.raises(DistillationError, match=r"no network to learn from .*quickstart/dsi.py"):
        distill(tiny_fcos(), tiny_fcos(seed=1), DSI())
    with pytest.raises(DistillationError, match=r"stride=64, but .* strides \[8, 16, 32\]"):
        distill(tiny_fcos(), tiny_fcos(seed=1), DSI(teacher=feature_teacher(), stride=64))
    student = tiny_fcos()
    own = feature_teacher(student.backbone.bottom_up, output="res5", size_divisibility=32)
    with pytest.raises(DistillationError, match="has parameters of the student; give it a copy"):
        distill(student, tiny_fcos(seed=1), DSI(teacher=own))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, "weight=0.0"),
        ({"stride": 0}, "stride=0"),
        ({"teacher": OneMap()}, r"(?s)teacher=OneMap.*: expected a FeatureTeacher"),
    ],
)
def test_what_an_option_cannot_be_is_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DSI(**options)
