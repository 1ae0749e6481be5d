"""Detectors by name, as from detectron2's zoo."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import instantiate

from dense_kd import FCOS, GFL, get_config, model_zoo
from dense_kd.recipes import PUBLISHED


def test_a_trained_config_starts_from_the_published_weights():
    cfg = model_zoo.get_config("gfl/r50_1x.py", trained=True)
    assert cfg.train.init_checkpoint == "mmdet://gfl_r50_fpn_1x_coco"
    plain = model_zoo.get_config("gfl/r50_1x.py")
    assert plain.train.init_checkpoint == get_config("gfl/r50_1x.py").train.init_checkpoint


def test_every_published_name_is_found():
    for path, weights in PUBLISHED.items():
        assert model_zoo.get_checkpoint_url(path) == weights


def test_what_is_not_published_or_not_there_is_said():
    with pytest.raises(RuntimeError, match="no weights are published for quickstart/student.py"):
        model_zoo.get("quickstart/student.py", trained=True)
    with pytest.raises(FileNotFoundError, match="There is no config 'gfl/r51_1x.py'"):
        model_zoo.get_checkpoint_url("gfl/r51_1x.py")


@pytest.mark.parametrize("name", ["quickstart/student.py", "quickstart/distill.py"])
def test_a_model_is_built_and_of_a_distillation_it_is_the_student(name: str):
    model = model_zoo.get(name, device="cpu")
    assert type(model) is FCOS and model.training


def test_a_trained_model_has_the_weights_of_its_file(tmp_path, monkeypatch):
    small = get_config("bccd/gfl_r18.py").model
    torch.manual_seed(3)
    saved = instantiate(small)
    torch.save({"model": saved.state_dict()}, tmp_path / "published.pth")
    monkeypatch.setitem(PUBLISHED, "bccd/gfl_r18.py", str(tmp_path / "published.pth"))
    model = model_zoo.get("bccd/gfl_r18.py", trained=True, device="cpu")
    assert type(model) is GFL
    for key, value in saved.state_dict().items():
        assert model.state_dict()[key].equal(value)
