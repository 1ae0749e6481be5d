"""A teacher that is a network without a head: what it sees, gives and loads."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dense_kd import FeatureTeacher
from dense_kd.checkpoint import CheckpointError
from dense_kd.detectors.base.images import ImageInput
from helpers.builders import assert_close, tiny_fcos
from helpers.feature_networks import PATCH, OneMap, Tokens, feature_teacher

BGR = ImageInput("BGR", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395))


class Seen(OneMap):
    """Keeps what it is shown."""

    def forward(self, images: Tensor) -> Tensor:
        self.images = images
        return super().forward(images)


def test_it_sees_the_pixels_of_the_students_batch_in_its_own_normalisation():
    network = Seen()
    teacher = FeatureTeacher(network, None, pixel_mean=[127.5, 120, 110], pixel_std=[64, 50, 40])
    pixels = torch.randint(0, 256, (2, 3, 32, 64)).float()  # BGR
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (BGR.mean, BGR.std))
    teacher.run((pixels - mean) / std, BGR)
    own = torch.tensor([127.5, 120, 110]).view(-1, 1, 1), torch.tensor([64.0, 50, 40])
    assert_close(network.images, (pixels.flip(1) - own[0]) / own[1].view(-1, 1, 1), 1e-6)


def test_an_equal_input_is_not_touched():
    network = Seen()
    options = {"pixel_mean": BGR.mean, "pixel_std": BGR.std, "input_format": "BGR"}
    images = torch.randn(1, 3, 32, 32)
    FeatureTeacher(network, None, **options).run(images, BGR)
    assert network.images is images


def test_grey_images_are_grey_in_all_channels():
    network = Seen()
    teacher = FeatureTeacher(network, None, pixel_mean=[1.0, 2.0, 3.0], pixel_std=[2.0] * 3)
    teacher.run(torch.ones(1, 1, 8, 8), ImageInput("L", (100.0,), (50.0,)))
    assert network.images[0, :, 0, 0].tolist() == pytest.approx([74.5, 74.0, 73.5])


def test_sides_that_are_no_multiples_are_resized_to_the_next_ones():
    network = Seen()
    teacher = FeatureTeacher(
        network, None, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3, size_divisibility=24
    )
    teacher.run(torch.ones(1, 3, 32, 72), ImageInput("RGB", (0.0,) * 3, (1.0,) * 3))
    assert network.images.shape == (1, 3, 48, 72)
    assert_close(network.images, torch.ones(1, 3, 48, 72))


@pytest.mark.parametrize("prefix", [0, 5])
def test_tokens_become_a_map_row_by_row_without_those_before_them(prefix: int):
    network = Tokens(prefix)
    teacher = feature_teacher(network, size_divisibility=PATCH, prefix_tokens=prefix)
    images = torch.zeros(2, 3, 2 * PATCH, 3 * PATCH)
    images[1, :, PATCH : 2 * PATCH, :PATCH] = 1  # the fourth patch
    found = teacher.run(images, teacher.image_input)
    assert found.shape == (2, network.width, 2, 3)
    difference = (found[1] - found[0]).abs().sum(dim=0)
    assert difference[1, 0] > 0 and difference.count_nonzero() == 1


def test_a_number_of_tokens_that_does_not_fit_says_what_to_correct():
    with pytest.raises(ValueError, match=r"gives 29 tokens .* expected 24: prefix_tokens=0, .*"):
        feature_teacher(Tokens(5), size_divisibility=PATCH)


class Several(nn.Module):
    """Gives several maps by name, or in a list."""

    def __init__(self, kind: type):
        super().__init__()
        self.kind = kind
        self.body = OneMap()

    def forward(self, images: Tensor) -> dict | list | tuple:
        maps = {"fine": images, "coarse": self.body(images)}
        return maps if self.kind is dict else self.kind(maps.values())


@pytest.mark.parametrize(("kind", "output"), [(dict, "coarse"), (list, 1), (tuple, 1)])
def test_one_of_several_outputs_is_named(kind: type, output):
    assert feature_teacher(Several(kind), output=output).channels == OneMap().width
    with pytest.raises(ValueError, match=r"output=None: the network gives \[.*\]; name one"):
        feature_teacher(Several(kind))
    with pytest.raises(ValueError, match="output='x': the network gives"):
        feature_teacher(Several(kind), output="x")


class Gives(nn.Module):
    """Makes of images what a function does."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images: Tensor):
        return self.function(images)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.mean(dim=(2, 3)), r"gives \(1, 3\) for images; expected one map"),
        (lambda x: "map", "gives str for images"),
        (lambda x: x.permute(0, 2, 3, 1), r"\(1, 64, 96, 3\) .* expected a map \(N, C, H, W\)"),
        (lambda x: x.view(1, 3, 7, -1), r"cannot be run on an image of 64 x 96 pixels"),
    ],
)
def test_a_network_that_gives_something_else_is_refused_when_it_is_given(function, message: str):
    with pytest.raises(ValueError, match=message):
        feature_teacher(Gives(function))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size_divisibility": 0}, "size_divisibility=0"),
        ({"prefix_tokens": -1}, "prefix_tokens=-1"),
        ({"precision": "int8"}, "precision='int8'"),
        ({"input_format": "L", "pixel_mean": [1.0], "pixel_std": [1.0]}, "'L'"),
        ({"pixel_std": [1.0]}, "pixel_std"),
        ({"output": 0}, "gives one output, which has no name"),
        ({"weights": ""}, "no weights"),
    ],
)
def test_what_an_argument_cannot_be_is_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        feature_teacher(**options)
    with pytest.raises(TypeError, match=r"a builtins.str, expected an nn.Module"):
        feature_teacher("resnet")


def test_it_is_frozen_in_eval_mode_and_shared_by_copies():
    network = nn.Sequential(OneMap(), nn.BatchNorm2d(OneMap().width), nn.Dropout(0.5))
    teacher = feature_teacher(network)
    network.train()
    images = torch.randn(1, 3, 16, 16).requires_grad_()
    first, second = (teacher.run(images, teacher.image_input) for _ in range(2))
    assert torch.equal(first, second) and not first.requires_grad
    assert not any(p.requires_grad for p in network.parameters())
    assert not network[1].running_mean.any()
    assert copy.deepcopy(teacher) is teacher


def test_it_runs_in_the_precision_that_it_is_given_and_gives_float32():
    images = torch.randn(1, 3, 16, 16)
    torch.manual_seed(0)
    network = OneMap()
    exact, rounded = (
        feature_teacher(copy.deepcopy(network), precision=name).run(images, BGR)
        for name in ("float32", "bfloat16")
    )
    assert exact.dtype == rounded.dtype == torch.float32
    assert 0 < (exact - rounded).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.net."])
def test_a_file_may_hold_more_than_the_network(prefix: str, tmp_path):
    saved = OneMap(seed=1)
    state = {f"{prefix}{key}": value for key, value in saved.state_dict().items()}
    torch.save({**state, "fc.weight": torch.ones(2)}, tmp_path / "file.pth")
    teacher = feature_teacher(OneMap(), weights=str(tmp_path / "file.pth"))
    images = torch.randn(1, 3, 16, 16)
    assert_close(teacher.run(images, BGR), feature_teacher(saved).run(images, BGR), 1e-6)
    assert teacher.loaded


def test_the_backbone_of_a_detectors_checkpoint_is_loaded(tmp_path):
    detector = tiny_fcos(seed=1)
    torch.save({"model": detector.state_dict()}, tmp_path / "detector.pth")
    network = copy.deepcopy(tiny_fcos(seed=2).backbone.bottom_up)
    teacher = feature_teacher(
        network, weights=str(tmp_path / "detector.pth"), output="res5", size_divisibility=32
    )
    teacher.load()
    for key, value in network.state_dict().items():
        assert torch.equal(value, detector.backbone.bottom_up.state_dict()[key]), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if "bias" not in k}, "1 are not there under any"),
        (lambda s: {k: v[:1] for k, v in s.items()}, "of another shape"),
        (lambda s: {k: v * torch.nan for k, v in s.items()}, "not finite"),
        (lambda s: {f"{p}.{k}": v for k, v in s.items() for p in "ab"}, "more than once, under"),
        (lambda s: {f"{i}.{k}": v for i, (k, v) in enumerate(s.items())}, "have no common"),
    ],
)
def test_a_file_that_does_not_hold_the_network_once_and_whole_is_refused(change, message, tmp_path):
    torch.save(change(OneMap().state_dict()), tmp_path / "file.pth")
    teacher = feature_teacher(OneMap(), weights=str(tmp_path / "file.pth"))
    with pytest.raises(CheckpointError, match=message):
        teacher.load()
