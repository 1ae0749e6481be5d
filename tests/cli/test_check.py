"""``dense-kd check``: prints what a dry run finds, and ends with 1 if anything does not fit."""

from __future__ import annotations

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dense_kd import cli
from dense_kd.engine.dry_run.unchanged import unchanged
from helpers.checked_runs import DATA, register


@pytest.fixture(autouse=True)
def data(tmp_path):
    with unchanged():
        for name in ("checked_train", "checked_val"):  # of the tests of the engine
            DatasetCatalog.pop(name, None)
            MetadataCatalog.pop(name, None)
        register(tmp_path)
        yield


def check(tmp_path, *argv: str) -> int:
    few = ("--images", "1", "--steps", "1", f"train.output_dir={tmp_path / 'out'}")
    return cli.main(["check", *argv, *few, *DATA])


def test_a_run_that_fits_ends_with_fits_and_0(tmp_path, capsys):
    assert check(tmp_path, "quickstart/student") == 0
    text = capsys.readouterr().out
    assert text.startswith("data ") and text.endswith("\nfits\n")
    assert not (tmp_path / "out").exists()


def test_a_run_that_does_not_fit_ends_with_what_does_not_and_1(tmp_path, capsys):
    assert check(tmp_path, "quickstart/distill", "model.teacher.weights=/none/x.pth") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "does not fit: 1 problem" and "/none/x.pth does not exist" in lines[-1]


def test_json_is_all_that_is_printed(tmp_path, capsys):
    assert check(tmp_path, "quickstart/student", "--json", "model.num_classes=4") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is False and found["train"] is None
    assert any("num_classes=4" in problem for problem in found["problems"])
    assert found["schedule"]["max_iter"] == 1


def test_the_part_that_is_tried_can_be_chosen(tmp_path, capsys):
    argv = ["quickstart/student", "--json", "--batch-size", "1", "--num-gpus", "2"]
    assert check(tmp_path, *argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["train"]["batch"]["num_images"] == found["evaluation"]["num_images"] == 1
    assert found["schedule"]["images_per_iteration"] == 2
    with pytest.raises(SystemExit):
        check(tmp_path, "quickstart/student", "--images", "0")
    assert "'0': expected a whole number of at least 1" in capsys.readouterr().err


def test_a_config_that_is_not_there_is_said(tmp_path, capsys):
    assert check(tmp_path, "quickstart/studnet") == 1
    assert "quickstart/student" in capsys.readouterr().err
