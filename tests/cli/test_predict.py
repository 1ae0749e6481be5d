"""``dense-kd predict``, from its arguments to its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from dense_kd import get_config
from dense_kd.checkpoint import zoo
from dense_kd.cli import main
from dense_kd.data.shapes import CLASSES
from dense_kd.prediction import settings
from helpers.described import picture, write_checkpoint


@pytest.fixture
def weights(tmp_path) -> str:
    return write_checkpoint(tmp_path / "model_final.pth", class_names=list(CLASSES))


@pytest.fixture
def photos(tmp_path) -> Path:
    for seed in range(3):
        (tmp_path / "photos").mkdir(exist_ok=True)
        picture(seed=seed).save(tmp_path / "photos" / f"{seed}.png")
    return tmp_path / "photos"


def predict(*arguments) -> int:
    return main(["predict", *map(str, arguments), "--device", "cpu"])


def test_it_says_what_was_found_and_where_it_is(weights, photos, tmp_path, capsys):
    output = tmp_path / "found"
    assert predict(weights, photos, photos / "1.png", "--output", output, "--threshold", 0.6) == 0
    results = json.loads((output / "predictions.json").read_text())
    assert {r["category"] for r in results} <= set(CLASSES)
    assert min(r["score"] for r in results) >= 0.6
    said = capsys.readouterr()
    assert said.out == (
        f"{len(results)} detections in 3 images: {output}/predictions.json\n"
        f"pictures: {output}/images\n"
    )
    assert said.err == ""
    assert len(list((output / "images").iterdir())) == 3


def test_a_published_detector_is_run_by_its_name(photos, tmp_path, monkeypatch):
    name, config = "mmdet://gfl_r50_fpn_1x_coco", "quickstart/gfl.py"
    file = str(tmp_path / "published.pth")
    weights = instantiate(get_config(config).model).state_dict()
    weights["head.cls_score.bias"].zero_()  # so that something is found
    torch.save({"model": weights}, file)
    monkeypatch.setattr(settings, "PUBLISHED", {config: name})  # as if it were that small
    monkeypatch.setattr(zoo.ZooHandler, "download", lambda *_, **__: file)
    found = []
    for source in ([file, photos, "--config", config], [name, photos]):
        output = tmp_path / f"found {len(found)}"
        assert predict(*source, "--output", output, "--threshold", 0) == 0
        found.append(json.loads((output / "predictions.json").read_text()))
    assert found[0] == found[1] != []


def test_an_unreadable_image_is_named_and_makes_the_exit_code_1(weights, photos, tmp_path, capsys):
    (photos / "damaged.png").write_text("no image")
    output = tmp_path / "found"
    assert predict(weights, photos, "--output", output, "--no-images") == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"dense-kd: {photos}/damaged.png: it is no image")
    assert "1 image could not be read" in said.err and "unreadable.txt" in said.err
    assert "in 3 images" in said.out and "pictures" not in said.out
    assert sorted(p.name for p in output.iterdir()) == ["predictions.json", "unreadable.txt"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["none.pth", "photos"], "none.pth does not exist"),
        (["model_final.pth", "nothing"], "there is no nothing"),
        (["model_final.pth", "empty"], "no image was found in empty"),
        (["model_final.pth", "photos", "--threshold", "2"], "score_threshold=2.0"),
        (["model_final.pth", "photos", "--batch-size", "0"], "batch_size=0"),
        (["model_final.pth", "photos", "--config", "quickstart/gfl"], "does not fit GFL"),
        (["photos/0.png", "photos"], "could not be read"),
        (["model_final.pth", "photos", "--output", "photos/0.png/x"], "0.png is a file, expected"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(
    weights, photos, arguments, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert predict(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("dense-kd: ") and said in error
    assert not (tmp_path / "predictions").exists()


def test_by_default_it_writes_to_a_folder_here(weights, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert predict("model_final.pth", "photos/0.png", "--threshold", 0) == 0
    assert (tmp_path / "predictions" / "images" / "0.jpg").exists()
    assert predict("model_final.pth", "photos/0.png") == 1
    assert predict("model_final.pth", "photos/0.png", "--overwrite") == 0
