from __future__ import annotations

import json

import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

from dense_kd.data import detection_dataset, read_dataset, register_annotations, write_annotations
from helpers import checked_runs
from helpers.own_datasets import scenes, write_image, write_voc


@pytest.fixture
def written(tmp_path):
    """A dataset with a test set, an empty image and an odd name, and its files."""
    objects = {**scenes(5), "empty": [], "Zellé 1": [("disc", [-4, 2, 9, 9])]}
    lists = {"train": ["000", "001", "empty", "Zellé 1"], "val": ["002", "003"], "test": ["004"]}
    dataset = read_dataset(write_voc(tmp_path / "data", objects, lists))
    return dataset, write_annotations(dataset, tmp_path / "out")


@pytest.fixture
def registered(written):
    dataset, files = written
    for part, file in files.items():
        register_annotations(f"own_{part}", file, dataset.root)
    yield dataset, files
    checked_runs.unregister(*(f"own_{part}" for part in files))


def without_areas(records):
    return [
        {**r, "annotations": [{k: a[k] for k in a if k != "area"} for a in r["annotations"]]}
        for r in records
    ]


def test_what_detectron2_loads_is_the_dataset(registered):
    dataset, files = registered
    assert list(files) == ["train", "val", "test"]
    for part, records in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test)):
        loaded = DatasetCatalog.get(f"own_{part}")
        assert loaded == without_areas(records)
        assert MetadataCatalog.get(f"own_{part}").thing_classes == dataset.classes


def test_names_are_relative_to_the_root_and_absolute_outside(written, tmp_path):
    dataset, files = written
    content = json.loads(files["train"].read_text())
    assert "JPEGImages/Zellé 1.jpg" in [image["file_name"] for image in content["images"]]
    assert [c["id"] for c in content["categories"]] == [1, 2]
    assert content["info"]["split"] == dataset.split
    dataset.val[0]["file_name"] = str(write_image(tmp_path / "other/x.png"))
    content = json.loads(write_annotations(dataset, tmp_path / "out")["val"].read_text())
    assert content["images"][0]["file_name"] == str(tmp_path / "other/x.png")


def test_the_same_dataset_gives_the_same_bytes_and_nothing_else(written, tmp_path):
    dataset, files = written
    before = {file: file.read_bytes() for file in files.values()}
    write_annotations(read_dataset(dataset.root), tmp_path / "out")
    assert {file: file.read_bytes() for file in files.values()} == before
    assert sorted((tmp_path / "out").iterdir()) == sorted(files.values())


def test_images_reach_a_detector_with_their_boxes(registered):
    dataset, _ = registered
    mapper = DatasetMapper(is_train=True, augmentations=[], image_format="BGR")
    batch = [mapper(record) for record in detection_dataset("own_train", filter_empty=False)]
    assert [len(image["instances"]) for image in batch] == [
        len(r["annotations"]) for r in dataset.train
    ]
    assert all(image["image"].shape == (3, 30, 40) for image in batch)


def test_the_evaluator_of_coco_gives_full_marks_to_the_boxes_themselves(registered, tmp_path):
    dataset, _ = registered
    evaluator = COCOEvaluator("own_val", output_dir=str(tmp_path), use_fast_impl=False)
    evaluator.reset()
    for record in dataset.val:
        boxes = torch.tensor([a["bbox"] for a in record["annotations"]])
        boxes[:, 2:] += boxes[:, :2]
        found = Instances((record["height"], record["width"]))
        found.pred_boxes, found.scores = Boxes(boxes), torch.ones(len(boxes))
        found.pred_classes = torch.tensor([a["category_id"] for a in record["annotations"]])
        evaluator.process([record], [{"instances": found}])
    results = evaluator.evaluate()["bbox"]
    assert results["AP"] == results["AP-disc"] == results["AP-square"] == pytest.approx(100)


def test_the_check_of_a_run_knows_the_registered_classes_before_anything_is_loaded(registered):
    names = ("dataloader.train.dataset.names=own_train", "dataloader.test.dataset.names=own_val")
    assert checked_runs.problems(*names, "model.num_classes=2") == []
    found = checked_runs.problems(*names, "model.num_classes=3")
    assert any("the dataset own_train (dataloader.train) has 2 classes (disc, square)" in p
               for p in found)  # fmt: skip
