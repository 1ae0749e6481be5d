"""The config.yaml of a run of ``dense-kd distill`` has its datasets, though it registers none."""

from __future__ import annotations

import json
import shutil

import pytest
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog

from dense_kd.cli import main
from dense_kd.data import generate_shapes
from dense_kd.data.registration import datasets_forgotten
from dense_kd.engine import RunError, load_config
from dense_kd.engine.checks.data import name_problems
from helpers.configs import fresh


@pytest.fixture(autouse=True)
def catalogs():
    with datasets_forgotten():
        yield


@pytest.fixture
def distillation(tmp_path):
    """A function that makes the folder of one, by its name; all of the same images."""

    def make(name="out"):
        folder = tmp_path / name
        (folder / "data").mkdir(parents=True)
        for part in ("train", "val"):
            file = generate_shapes(tmp_path / "photos", part, 2)
            shutil.copy(file, folder / "data" / f"{part}.json")
        record = {"data": {"data": str(tmp_path / "photos" / "train")}, "options": {}}
        (folder / "distill.json").write_text(json.dumps(record))
        cfg = fresh("quickstart/student.py")
        cfg.dataloader.train.dataset.names = "photos_train"
        cfg.dataloader.test.dataset.names = "photos_val"
        cfg.dataloader.evaluator.dataset_name = "photos_val"
        (folder / "distilled").mkdir()
        LazyConfig.save(cfg, str(folder / "distilled" / "config.yaml"))
        return folder

    return make


def test_its_datasets_are_registered_from_the_files_beside_it(distillation, tmp_path):
    folder = distillation()
    cfg = load_config(str(folder / "distilled" / "config.yaml"))
    assert len(DatasetCatalog.get("photos_train")) == 2
    metadata = MetadataCatalog.get("photos_val")
    assert metadata.json_file == str(folder / "data" / "val.json")
    assert metadata.image_root == str(tmp_path / "photos" / "train")
    assert not [*name_problems(cfg, "train")]


def test_another_distillation_of_the_same_images_has_the_same_datasets_and_others_are_refused(
    distillation,
):
    first, second, third = map(distillation, ("a", "b", "c"))
    for folder in (first, second):
        load_config(str(folder / "distilled" / "config.yaml"))
    content = json.loads((third / "data" / "val.json").read_text())
    (third / "data" / "val.json").write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(RunError, match="'photos_val' is registered already"):
        load_config(str(third / "distilled" / "config.yaml"))


def test_images_that_have_moved_are_said_before_an_export_begins(distillation, tmp_path, capsys):
    folder = distillation()
    shutil.rmtree(tmp_path / "photos")
    place = folder / "distilled" / "config.yaml"
    cfg = load_config(str(place))  # which needs no images
    (problem,) = name_problems(cfg, "train")
    assert "photos/train does not exist. It is of the data of" in problem
    (folder / "distilled" / "model_final.pth").touch()
    assert main(["export", str(folder / "distilled"), "--to", "onnx", "--int8"]) == 1
    said = capsys.readouterr().err
    assert f"int8 needs the data of the run, {place}:" in said
    assert "dataloader.train.dataset.names=photos_train" in said


def test_a_config_elsewhere_registers_nothing_and_says_what_does(distillation, tmp_path):
    folder = distillation()
    copy = shutil.copytree(folder / "distilled", tmp_path / "elsewhere" / "run")
    cfg = load_config(str(copy / "config.yaml"))
    (problem,) = name_problems(cfg, "train")
    assert "photos_train: no such dataset is registered (one's own are by the .py" in problem
