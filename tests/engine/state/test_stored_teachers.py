"""A resumed run says that a teacher is another one under the same name."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.engine import HookBase

from dense_kd import BCKD, DSI, FeatureTeacher, FromTeacher, Teacher
from dense_kd.checkpoint import read_weights
from dense_kd.engine import train
from dense_kd.engine.state import run_folder
from dense_kd.engine.state.stored_teachers import changed_files, files_of_teachers
from helpers.builders import fcos_config
from helpers.saved_runs import config, distillation, saved
from helpers.tried_runs import trained, two_iterations, write_teacher

SAID = "is another file by now, and the teacher from here on (SHA-256 "


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def of_place(place: str, weights: Path):
    """A distillation whose teacher at ``place`` has that file."""
    second = L(Teacher)(model=fcos_config(), weights=str(weights))
    network = L(FeatureTeacher)(network=L(torch.nn.Identity)(), weights=str(weights))
    method = {
        "model.methods.second.teacher": L(FromTeacher)(teacher=second, method=L(BCKD)()),
        "model.methods.second.network": L(DSI)(network=network),
    }
    model = distillation(second=method.get(place, L(BCKD)()))
    if place == "model.teacher":
        model.teacher.weights = str(weights)
    return model


PLACES = ["model.teacher", "model.methods.second.teacher", "model.methods.second.network"]


@pytest.mark.parametrize("place", PLACES)
def test_another_file_of_a_teacher_is_said_by_the_name_of_its_weights(tmp_path, place):
    weights = tmp_path / "teacher.pth"
    weights.write_bytes(b"one")
    before = digest(weights)
    cfg = config(tmp_path / "run", model=of_place(place, weights))
    saved(cfg, 500)
    assert run_folder.remarks(cfg, True, files_of_teachers(cfg)) == ""
    weights.write_bytes(b"another")
    assert run_folder.problems(cfg, resume=True) == []
    remark = run_folder.remarks(cfg, True, files_of_teachers(cfg))
    assert "Going on after 500 iterations with another teacher (" in remark
    change = f"{before[:12]} -> {digest(weights)[:12]})"
    assert f"      {place}.weights: {weights} {SAID}{change}" in remark
    cfg.train.max_iter = 500
    remark = run_folder.remarks(cfg, True, files_of_teachers(cfg))
    assert "All 500 iterations are done, so another config changes nothing" in remark
    assert SAID in remark and "train.max_iter" in remark


def test_a_teacher_of_another_name_is_a_change_of_the_config_and_said_once(tmp_path):
    (tmp_path / "one.pth").write_bytes(b"one")
    cfg = config(tmp_path / "run", model=of_place("model.teacher", tmp_path / "one.pth"))
    saved(cfg, 500)
    for content in (b"one", b"another"):
        (tmp_path / "two.pth").write_bytes(content)
        cfg.model.teacher.weights = str(tmp_path / "two.pth")
        remark = run_folder.remarks(cfg, True, files_of_teachers(cfg))
        assert remark.count("model.teacher.weights") == 1 and SAID not in remark


def test_weights_of_a_public_name_are_known_by_it_and_no_file_is_looked_for():
    cfg = config("run", model=of_place("model.teacher", "teacher.pth"))
    cfg.model.teacher.weights = "mmdet://gfl_r101_fpn_mstrain_2x_coco"
    files = files_of_teachers(cfg)
    assert files["model.teacher"]["digest"] == cfg.model.teacher.weights
    assert changed_files({"model.teacher": cfg.model.teacher.weights}, files) == {}


def test_of_an_earlier_checkpoint_or_a_damaged_entry_nothing_is_said(tmp_path):
    weights = tmp_path / "teacher.pth"
    weights.write_bytes(b"one")
    cfg = config(tmp_path / "run", model=of_place("model.teacher", weights))
    saved(cfg, 500)
    file = tmp_path / "run" / "model_0000499.pth"
    content = torch.load(file, weights_only=True)
    assert content["teachers"] == {"model.teacher": digest(weights)}
    for entry in (None, {}, [1], {"model.teacher": 3}):
        torch.save({**content, "teachers": entry}, file)
        assert run_folder.remarks(cfg, True, files_of_teachers(cfg)) == ""
    assert set(read_weights(str(file))) == {"weight", "bias"}


def test_a_run_goes_on_with_another_file_says_so_and_then_has_its_digest(tmp_path, caplog):
    teacher = write_teacher(tmp_path / "teacher.pth")
    cfg = two_iterations(teacher, tmp_path / "run")
    assert trained(cfg)["teachers"] == {"model.teacher": digest(teacher)}

    def resumed() -> dict:
        (tmp_path / "run" / "model_final.pth").unlink()
        (tmp_path / "run" / "last_checkpoint").write_text("model_0000000.pth")
        caplog.clear()
        return trained(cfg, resume=True)

    resumed()
    assert SAID not in caplog.text
    before = digest(teacher)
    write_teacher(teacher)
    assert digest(teacher) != before
    assert resumed()["teachers"] == {"model.teacher": digest(teacher)}
    assert caplog.text.count(SAID) == 1


class Fails(HookBase):
    """In the first step, after the file of the teacher was replaced."""

    def __init__(self, teacher: Path):
        self.teacher = teacher

    def after_backward(self):
        write_teacher(self.teacher)
        raise RuntimeError("fails here")


def test_a_step_is_kept_with_the_file_that_the_run_had_read(tmp_path):
    teacher = write_teacher(tmp_path / "teacher.pth")
    before = digest(teacher)
    cfg = two_iterations(teacher, tmp_path / "run")
    with pytest.raises(RuntimeError, match="fails here"):
        train(argparse.Namespace(resume=False), cfg, more_hooks=[Fails(teacher)])
    (file,) = (tmp_path / "run" / "replay").iterdir()
    kept = torch.load(file, weights_only=True)["teachers"]["model.teacher"]
    assert kept == {"weights": str(teacher), "digest": before} and digest(teacher) != before
