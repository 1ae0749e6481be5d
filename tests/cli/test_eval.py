"""``dense-kd eval``."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from unittest import mock

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from dense_kd import get_config
from dense_kd.cli import main
from dense_kd.engine import RunError, command
from dense_kd.engine.evaluating import tables, weights_of
from dense_kd.evaluation.analysis import MAIN_ERRORS
from dense_kd.evaluation.coco import DETECTIONS
from helpers.missing_extras import hide


def asked(*argv: str):
    """What the command line asks to evaluate."""
    with mock.patch.object(command, "start") as start:
        assert main(["eval", *argv]) == 0
    return start.call_args[0][0]


def test_weights_are_the_second_name_and_those_of_the_student(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dir with space").mkdir()
    (tmp_path / "dir with space" / "a=b.pth").touch()
    args = asked("quickstart/distill", "dir with space/a=b.pth", "train.device=cpu")
    assert (args.config_file, args.eval_only, args.eval_teacher) == (
        "quickstart/distill", True, False
    )  # fmt: skip
    assert args.opts == ["train.device=cpu", 'train.init_checkpoint="dir with space/a=b.pth"']


def test_weights_may_be_those_of_the_teacher():
    args = asked("--teacher", "quickstart/distill", "t.pth")
    assert args.eval_teacher and args.opts == ['model.teacher.weights="t.pth"']
    assert asked("--teacher", "quickstart/distill").opts == []


OF_WEIGHTS = [
    "train.init_checkpoint=a.pth",
    "++train.init_checkpoint=a.pth",
    "+train.init_checkpoint='a.pth'",
    "train={init_checkpoint:a.pth}",
]


@pytest.mark.parametrize("override", OF_WEIGHTS)
def test_an_override_names_the_weights_too(override, tmp_path):
    options = [override, f"train.output_dir={tmp_path}"]
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    assert asked("quickstart/student", *options).opts == options
    assert weights_of("quickstart/student", options) == "a.pth"


@pytest.mark.parametrize("override", [*OF_WEIGHTS, "++model.teacher.weights=a.pth"])
def test_weights_are_given_once(override, capsys):
    teacher = ["--teacher"] if "teacher" in override else []
    assert main(["eval", "quickstart/distill", "b.pth", override, *teacher]) == 1
    assert "weights are given twice, as b.pth and by an override of " in capsys.readouterr().err
    if not teacher:
        with pytest.raises(RunError, match="given twice"):
            weights_of("quickstart/distill", [override], "b.pth")


def test_without_weights_the_last_checkpoint_of_the_run_is_taken_or_what_is_published(tmp_path):
    folder = [f"train.output_dir={tmp_path}"]
    assert weights_of("gfl/r50_1x", folder) == "mmdet://gfl_r50_fpn_1x_coco"
    with pytest.raises(RunError, match="no weights to evaluate: .* holds no checkpoint of a run"):
        weights_of("quickstart/student", folder)
    (tmp_path / "last_checkpoint").write_text("")
    assert weights_of("gfl/r50_1x", folder) == "mmdet://gfl_r50_fpn_1x_coco"
    (tmp_path / "last_checkpoint").write_text("model_0000099.pth")
    for config in ("gfl/r50_1x", "quickstart/student"):
        assert weights_of(config, folder) == f"{tmp_path}/model_0000099.pth"


def test_a_config_in_the_folder_of_its_run_has_the_checkpoint_beside_it(tmp_path):
    run, other = tmp_path / "moved", tmp_path / "other"
    for folder, checkpoint in ((run, "model_final.pth"), (other, "model_0000099.pth")):
        folder.mkdir()
        (folder / "last_checkpoint").write_text(checkpoint)
    for name, expected in (("config.yaml", f"{run}/model_final.pth"),
                           ("mine.yaml", f"{other}/model_0000099.pth")):  # fmt: skip
        (run / name).write_text(f"train: {{output_dir: {other}}}\n")
        assert weights_of(str(run / name), []) == expected


def test_a_third_name_is_refused(capsys):
    assert main(["eval", "quickstart/student", __file__, "other.pth"]) == 1
    assert "other.pth: expected an override" in capsys.readouterr().err


def test_metrics_are_set_out_in_tables():
    results = {"bbox": {"AP": 20.04, "AP50": 32.3, "APs": math.nan, "AP-disk": 7.0, "AP-box": 9}}
    lines = [line.split() for line in tables(results).splitlines()]
    assert lines[0] == ["bbox", "AP", "AP50", "APs"]
    assert lines[2] == ["20.0", "32.3", "-"]
    assert lines[4] == ["class", "AP"] and lines[6:] == [["disk", "7.0"], ["box", "9.0"]]


def test_errors_are_written_where_the_run_is_unless_a_folder_is_given(tmp_path, monkeypatch):
    pytest.importorskip("hotcoco")
    monkeypatch.chdir(tmp_path)
    stale = tmp_path / "out" / "inference" / DETECTIONS
    stale.parent.mkdir(parents=True)
    stale.write_text("[]")
    args = asked("quickstart/student", __file__, "train.output_dir=out", "--errors")
    assert 'dataloader.evaluator.output_dir="out/inference"' in args.opts
    assert not stale.exists()  # or those of another evaluation could be taken for this one's
    given = "dataloader.evaluator.output_dir=mine"
    assert asked("quickstart/student", __file__, given, "--errors").opts[-1].endswith('="mine"')


def test_errors_of_a_config_as_a_run_has_saved_it_are_analysed_too(tmp_path):
    pytest.importorskip("hotcoco")
    saved = str(tmp_path / "config.yaml")
    LazyConfig.save(get_config("quickstart/student.py"), saved)
    folder = (tmp_path / "out").as_posix()
    args = asked(saved, __file__, f"train.output_dir={folder}", "--errors")
    assert args.opts[-1] == f'dataloader.evaluator.output_dir="{folder}/inference"'


def test_errors_of_an_evaluator_that_keeps_no_detections_are_refused(tmp_path, capsys):
    pytest.importorskip("hotcoco")
    assert main(["eval", "gfl/voc_r50_1x", __file__, "--errors"]) == 1
    said = capsys.readouterr().err
    assert "VOCEvaluator" in said and "expected a COCOEvaluator, or no --errors" in said


def test_errors_without_the_extra_say_how_to_get_it(monkeypatch, capsys):
    hide("hotcoco", monkeypatch)
    assert main(["eval", "quickstart/student", __file__, "--errors"]) == 1
    assert "pip install 'dense_kd[evaluation]'" in capsys.readouterr().err


@pytest.mark.slow
def test_numbers_and_errors_of_an_evaluation_are_printed_and_written(workspace, capsys):
    pytest.importorskip("hotcoco")
    torch.manual_seed(0)
    model = instantiate(get_config("quickstart/student.py").model)
    torch.save({"model": model.state_dict()}, "model.pth")
    options = ["--errors", "--json", "new/found.json", "model.test_score_thresh=0.0"]
    assert main(["eval", "quickstart/student", "model.pth", *options]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^bbox +AP +AP50", printed, re.M)
    assert re.search(r"^errors at 0.5", printed, re.M)
    content = json.loads(Path("new/found.json").read_text())
    assert content["metrics"]["bbox"]["APl"] is None  # no object of 64 pixels is large
    assert content["metrics"]["bbox"]["AP"] == pytest.approx(content["run"]["metrics"]["AP"])
    assert set(content["run"]["error_types"]["main"]) == {*MAIN_ERRORS}
    assert 0 <= content["run"]["calibration"]["ece"] <= 1
