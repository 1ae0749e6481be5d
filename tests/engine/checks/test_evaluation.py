"""Evaluators are built and datasets looked into before the first iteration."""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import json
import logging
import shutil

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators, PascalVOCDetectionEvaluator
from omegaconf import OmegaConf

from dense_kd import engine
from dense_kd.data import DatasetError
from dense_kd.engine import RunError, check_run
from dense_kd.engine.evaluation import Evaluation
from helpers.checked_runs import load, unregister

ARGS = argparse.Namespace(resume=False)


def config(tmp_path, *overrides: str, **options):
    return load(f"train.output_dir={tmp_path / 'out'}", *overrides, **options)


@pytest.fixture
def register(tmp_path):
    """Registers a COCO json that is made of the validation set's."""
    made = []

    def make(name: str, change) -> str:
        source = MetadataCatalog.get("checked_val")
        with open(source.json_file) as file:
            content = json.load(file)
        change(content)
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        from detectron2.data.datasets import register_coco_instances

        register_coco_instances(name, {}, str(path), source.image_root)
        made.append(name)
        return name

    yield make
    unregister(*made) if made else None


@pytest.mark.parametrize(
    "evaluator",
    [
        L(COCOEvaluator)(dataset_name="checked_val"),  # detectron2's configs: use_fast_impl=True
        L(COCOEvaluator)(dataset_name="checked_val", tasks=["bbox"], use_fast_impl=True),
        [L(COCOEvaluator)(dataset_name="checked_val")],
        L(DatasetEvaluators)(evaluators=[L(COCOEvaluator)(dataset_name="checked_val")]),
    ],
    ids=["stock", "with tasks", "a list", "several"],
)
def test_the_evaluators_of_stock_configs_run_without_compiled_operators(tmp_path, evaluator):
    cfg = config(tmp_path)
    cfg.dataloader.evaluator = evaluator
    check_run(cfg, "train")
    results = Evaluation(cfg).run(instantiate(cfg.model))
    assert set(results["bbox"]) >= {"AP", "AP50"}


def test_the_choice_of_an_implementation_is_logged(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("dense_kd.compat.has_fast_coco_evaluation", lambda: False)
    cfg = config(tmp_path)
    evaluator = COCOEvaluator("checked_val", use_fast_impl=False)
    evaluator._use_fast_impl = True  # as detectron2 0.5 leaves it
    cfg.dataloader.evaluator = evaluator
    with caplog.at_level(logging.INFO, "dense_kd"):
        assert not Evaluation(cfg).evaluator._use_fast_impl
    assert "COCO's own evaluation is used" in caplog.text


def test_the_validation_set_is_loaded_once_for_all_evaluations_of_a_run(tmp_path):
    cfg = config(tmp_path, "train.max_iter=2", "train.eval_period=1")
    loads = []
    original = DatasetCatalog["checked_val"]
    DatasetCatalog["checked_val"] = lambda: loads.append(1) or original()
    try:
        assert "AP" in engine.train(ARGS, cfg)["bbox"]
    finally:
        DatasetCatalog["checked_val"] = original
    assert loads == [1]


def never(*args, **kwargs):
    raise AssertionError("an iteration was started")


@pytest.fixture(autouse=True)
def no_iteration(monkeypatch, request):
    if "loaded_once" not in request.node.name:
        monkeypatch.setattr("dense_kd.engine.trainer.Trainer.run_step", never)


def refused(cfg, expected: str) -> None:
    with pytest.raises((RunError, DatasetError), match=f"(?s){expected}"):
        engine.train(ARGS, cfg)


def test_other_classes_than_the_datasets_are_found_before_the_first_batch(tmp_path):
    refused(
        config(tmp_path, "model.num_classes=3"),
        "num_classes=3, but the dataset checked_train .* 5 classes .*; give model.num_classes=5",
    )
    cfg = config(tmp_path)
    cfg.model.class_names = ["square", "circle", "triangle", "star", "cross"]
    refused(cfg, "class 0 is 'square' and 'circle'")


def test_a_validation_set_with_other_classes_is_found_before_the_first_batch(tmp_path, register):
    def another_order(content):
        for category in content["categories"]:
            category["id"] = 6 - category["id"]
        for annotation in content["annotations"]:
            annotation["category_id"] = 6 - annotation["category_id"]
        content["categories"].reverse()

    name = register("checked_reversed", another_order)
    cfg = config(tmp_path, f"dataloader.test.dataset.names={name}")
    refused(cfg, "in another order: 'circle' is 0 there and 4 here")

    def fewer(content):
        content["categories"] = content["categories"][:2]
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] < 3]

    name = register("checked_fewer", fewer)
    refused(config(tmp_path, f"dataloader.test.dataset.names={name}"), "has 2 classes")

    def named_alike(content):
        content["categories"][3]["name"] = content["categories"][0]["name"]

    name = register("checked_alike", named_alike)
    cfg = config(tmp_path, f"dataloader.test.dataset.names={name}")
    refused(cfg, r"checked_alike calls the classes \[0, 3\] all 'circle'; expected a name for each")


def test_an_empty_dataset_is_found_before_the_first_batch(tmp_path, register):
    name = register("checked_empty", lambda content: content.update(images=[], annotations=[]))
    refused(config(tmp_path, f"dataloader.test.dataset.names={name}"), f"{name}.*empty")
    refused(config(tmp_path, f"dataloader.train.dataset.names={name}"), "empty|no annotation")


def test_images_that_are_not_there_are_found_before_the_first_batch(tmp_path, register):
    def rename(content):
        for image in content["images"]:
            image["file_name"] = "gone_" + image["file_name"]

    name = register("checked_gone", rename)
    for part in ("train", "test"):
        refused(config(tmp_path, f"dataloader.{part}.dataset.names={name}"), "does not exist")


@pytest.mark.parametrize("part", ["train", "test"])
def test_any_image_that_is_not_there_is_found_before_the_first_batch(tmp_path, register, part):
    def rename(content):
        for image in content["images"][1:]:
            image["file_name"] = "gone_" + image["file_name"]

    name = register("checked_partly_gone", rename)
    cfg = config(tmp_path, f"dataloader.{part}.dataset.names={name}")
    refused(cfg, rf"{name} \(dataloader.{part}\): the image .*gone.*does not exist, nor do 2 more")


def test_boxes_that_a_run_can_do_nothing_with_are_said(tmp_path, register, caplog):
    def empty(content):
        for each in content["annotations"][:3]:
            each["bbox"][2] = 0

    name = register("checked_empty_boxes", empty)
    cfg = config(
        tmp_path,
        f"dataloader.train.dataset.names={name}",
        f"dataloader.test.dataset.names={name}",
        f"dataloader.evaluator.dataset_name={name}",
    )
    with pytest.raises(AssertionError, match="an iteration was started"):
        engine.train(ARGS, cfg)
    for part, said in (("train", "they are not learnt from"), ("test", "they can only be missed")):
        expected = f"{name} (dataloader.{part}) has 3 boxes without any pixel of their image"
        assert any(expected in m and said in m for m in caplog.messages)


def without_size(image: dict) -> None:
    del image["height"]


def without_id(image: dict) -> None:
    del image["image_id"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda image: image.update(image_id=7),
            "has several images of image_id=7; expected anoth",
        ),
        (without_id, "has no image_id; expected another one for each image"),
        (without_size, r"has .*000000.png without height or width, which COCOEvaluator needs"),
        (lambda image: image.update(annotations=[{}]), "has .*png with an annotation of bbox=None"),
        (
            lambda image: image["annotations"][0].update(category_id=7),
            "invalid category_id=7 for a dataset of 5 classes",
        ),
    ],
)
def test_what_an_evaluation_would_end_at_is_found_before_the_first_batch(tmp_path, change, said):
    def images() -> list[dict]:
        found = copy.deepcopy(DatasetCatalog.get("checked_val"))
        for each in found:
            change(each)
        return found

    DatasetCatalog.register("checked_function", images)
    MetadataCatalog.get("checked_function").thing_classes = ["a", "b", "c", "d", "e"]
    try:
        cfg = config(tmp_path, "dataloader.test.dataset.names=checked_function")
        cfg.dataloader.evaluator.output_dir = str(tmp_path)
        refused(cfg, f"checked_function.*{said}")
    finally:
        unregister("checked_function")


def test_images_that_tell_no_size_are_evaluated_where_a_json_tells_it(tmp_path):
    def images() -> list[dict]:
        return [
            {k: image[k] for k in ("file_name", "image_id")}
            for image in DatasetCatalog.get("checked_val")
        ]

    DatasetCatalog.register("checked_function", images)
    json_file = MetadataCatalog.get("checked_val").json_file
    MetadataCatalog.get("checked_function").set(json_file=json_file)
    try:
        cfg = config(tmp_path, "dataloader.test.dataset.names=checked_function")
        check_run(cfg, "train")
        assert "AP" in Evaluation(cfg).run(instantiate(cfg.model))["bbox"]
    finally:
        unregister("checked_function")


def test_an_evaluator_that_cannot_be_built_is_found_before_the_first_batch(tmp_path):
    cfg = config(tmp_path)
    cfg.dataloader.evaluator = L(PascalVOCDetectionEvaluator)(dataset_name="checked_val")
    refused(cfg, "dataloader.evaluator cannot be built: Pascal.*AttributeError")


def test_an_evaluator_that_needs_a_json_gets_a_folder_for_it(tmp_path):
    def images() -> list[dict]:
        return [{**x, "annotations": x["annotations"]} for x in DatasetCatalog.get("checked_val")]

    DatasetCatalog.register("checked_function", images)
    MetadataCatalog.get("checked_function").thing_classes = ["a", "b", "c", "d", "e"]
    try:
        cfg = config(tmp_path, "dataloader.test.dataset.names=checked_function")
        refused(cfg, "give it a folder, as in dataloader.evaluator.output_dir=")
        cfg.dataloader.evaluator.output_dir = str(tmp_path)
        assert "AP" in Evaluation(cfg).run(instantiate(cfg.model))["bbox"]
    finally:
        unregister("checked_function")


@pytest.mark.parametrize("another_process", [False, True])
def test_a_dataset_of_a_function_is_evaluated_as_it_is_and_not_as_it_was(tmp_path, another_process):
    """detectron2 reads the json that an earlier run has left in the folder."""
    moved = 0

    def images() -> list[dict]:
        found = copy.deepcopy(DatasetCatalog.get("checked_val"))
        for each in itertools.chain.from_iterable(image["annotations"] for image in found):
            each["bbox"][0] += moved
        return found

    def register_it() -> None:
        DatasetCatalog.register("checked_function", images)
        MetadataCatalog.get("checked_function").thing_classes = ["a", "b", "c", "d", "e"]

    def evaluated() -> tuple[list[float], list[float]]:
        cfg = config(tmp_path, "dataloader.test.dataset.names=checked_function")
        cfg.dataloader.evaluator.output_dir = str(tmp_path / "out")
        check_run(cfg, "train")
        truth = Evaluation(cfg).evaluator._coco_api.dataset["annotations"]
        expected = [each["bbox"] for image in images() for each in image["annotations"]]
        return [each["bbox"] for each in truth], expected

    register_it()
    try:
        first, expected = evaluated()
        assert first == expected
        moved = 3
        if another_process:
            unregister("checked_function")
            register_it()
        second, expected = evaluated()
        assert second == expected != first
        shutil.rmtree(tmp_path / "out")
        assert evaluated() == (second, expected)
    finally:
        unregister("checked_function")


@pytest.mark.parametrize("in_a_list", [False, True])
def test_a_dataset_without_names_of_classes_is_told_where_they_are_given(tmp_path, in_a_list):
    DatasetCatalog.register("checked_unnamed", lambda: DatasetCatalog.get("checked_val"))
    try:
        cfg = config(tmp_path, "dataloader.test.dataset.names=checked_unnamed")
        evaluator = L(COCOEvaluator)(dataset_name="checked_unnamed", output_dir=str(tmp_path))
        several = L(DatasetEvaluators)(evaluators=[evaluator])
        cfg.dataloader.evaluator = several if in_a_list else evaluator
        refused(cfg, r"MetadataCatalog.get\('checked_unnamed'\).thing_classes = \[")
    finally:
        unregister("checked_unnamed")


def test_no_evaluator_is_right_where_nothing_is_evaluated(tmp_path):
    cfg = config(tmp_path)
    del cfg.dataloader["evaluator"]
    check_run(cfg, "train")
    cfg.train.eval_period = 5
    refused(cfg, "dataloader has no evaluator")
    OmegaConf.update(cfg, "train.eval_period", 0)
    with pytest.raises(AssertionError, match="an iteration was started"):
        engine.train(ARGS, cfg)


def test_classes_out_of_range_are_found_before_the_first_batch(tmp_path):
    def images() -> list[dict]:
        found = DatasetCatalog.get("checked_train")
        found[-1]["annotations"][0]["category_id"] = 7
        return found

    DatasetCatalog.register("checked_out_of_range", images)
    try:
        cfg = config(tmp_path, "dataloader.train.dataset.names=checked_out_of_range")
        refused(cfg, "an object of class 7 in .*png; with model.num_classes=5, classes are 0 to 4")
    finally:
        unregister("checked_out_of_range")


@pytest.mark.parametrize("mode", ["train", "evaluate", "evaluate_teacher"])
def test_a_file_for_the_datasets_classes_in_another_order_is_refused(tmp_path, mode):
    """The configs of both detectors name no classes, so only file and dataset do."""
    path = tmp_path / "trained.pth"
    cfg = config(
        tmp_path,
        f"model.teacher.weights={path}",
        f"train.init_checkpoint={path if mode == 'evaluate' else ''}",
        config="quickstart/distill.py",
    )
    model = instantiate(cfg.model.student if mode == "evaluate" else cfg.model.teacher.model)
    with open(MetadataCatalog.get("checked_val").json_file) as file:
        names = [category["name"] for category in json.load(file)["categories"]]
    run = {
        "train": lambda: engine.train(ARGS, cfg),
        "evaluate": lambda: engine.evaluate(cfg),
        "evaluate_teacher": lambda: engine.evaluate_teacher(cfg),
    }[mode]
    torch.save({"model": model.state_dict(), "CLASSES": names[::-1]}, path)
    with pytest.raises(RunError, match="checked_val.* in another order: class 0 is") as error:
        run()
    assert names[0] in str(error.value) and names[-1] in str(error.value)
    torch.save({"model": model.state_dict(), "CLASSES": [n.upper() for n in names]}, path)
    begins = pytest.raises(AssertionError, match="an iteration was started")
    with begins if mode == "train" else contextlib.nullcontext():
        run()
