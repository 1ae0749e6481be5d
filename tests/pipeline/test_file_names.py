"""A folder and images whose names are no Unicode, up to the first training."""

from __future__ import annotations

import json
import os
import sys
from unittest import mock

import pytest

from dense_kd import distill
from dense_kd.engine import load_config
from dense_kd.engine.checks.files import name_problems
from dense_kd.pipeline import run as pipeline
from dense_kd.pipeline import stages
from dense_kd.pipeline.errors import PipelineError
from helpers.own_datasets import scenes, write_image, write_yolo
from helpers.small_distillation import SMALL

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="names are Unicode there")


@pytest.fixture
def folders(tmp_path):
    """DATA, and images without labels."""
    data, more = (tmp_path / os.fsdecode(name) for name in (b"caf\xe9", b"m\xe9"))
    write_yolo(data / "images/train", data / "labels/train", scenes(4))
    write_yolo(data / "images/val", data / "labels/val", {"v\udcff": scenes(1)["000"]})
    (data / "classes.txt").write_text("disc\nsquare\n")
    write_image(tmp_path / "1.png", (41, 31)).rename(tmp_path / "1")
    more.mkdir()
    (tmp_path / "1").rename(more / "\udce9.png")
    return data, more


def test_all_that_a_distillation_writes_before_its_trainings_takes_such_names(
    folders, tmp_path, capsys
):
    data, more = folders
    out = tmp_path / "out"
    options = {**SMALL, "unlabelled": more, "score_thresh": 0.5}
    assert distill(data, **options, dry_run=True) == {}
    assert "caf\\udce9" in capsys.readouterr().out
    for _ in range(2):  # what was stopped goes on
        with mock.patch.object(pipeline, "make_run", side_effect=PipelineError("as far as this")):
            with pytest.raises(PipelineError, match="as far as this"):
                distill(data, **options, output=out)
    assert (out / "log.txt").read_text(encoding="utf-8").count("caf\\udce9") >= 2
    listed = json.loads((out / "data" / "unlabelled.json").read_text())
    assert [image["file_name"] for image in listed["images"]] == ["\udce9.png"]
    cfg = load_config(str(out / "distilled.py"))
    assert cfg.dataloader.unlabelled.total_batch_size


def test_a_start_that_failed_early_is_gone_on_with(folders, tmp_path):
    data, _ = folders
    for _ in range(2):
        with mock.patch.object(stages, "write_annotations", side_effect=OSError("full")):
            with pytest.raises(OSError, match="full"):
                distill(data, **SMALL, output=tmp_path / "out")


def test_an_output_that_the_trainings_could_not_write_to_is_refused_first(folders, monkeypatch):
    data, more = folders
    said = r"output=.*: .*m\\udce9.* is no Unicode, which TensorBoard needs"
    with pytest.raises(PipelineError, match=said):
        distill(data, **SMALL, output=more / "out", dry_run=True)
    monkeypatch.chdir(more)
    with pytest.raises(PipelineError, match=said):
        distill(data, **SMALL, dry_run=True)
    [problem] = name_problems("train.output_dir", "out")
    assert problem.startswith("train.output_dir=out: ") and "is no Unicode" in problem
    assert not [*name_problems("train.output_dir", "/tmp/\u00e9")]
