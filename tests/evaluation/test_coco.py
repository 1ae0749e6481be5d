"""COCO's metrics by two libraries, and as an evaluator of detectron2."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator as Detectron2COCOEvaluator
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO

from dense_kd.errors import MissingExtraError
from dense_kd.evaluation import COCOEvaluator
from dense_kd.evaluation.coco import RECALLS, evaluate_boxes
from dense_kd.evaluation.errors import EvaluationError
from helpers.missing_extras import hide
from helpers.random_boxes import random_set


@pytest.mark.parametrize("seed", range(25))
def test_both_libraries_give_the_same_numbers_on_any_set(seed):
    pytest.importorskip("hotcoco")
    truth, results = random_set(seed)
    for images in (None, truth.getImgIds()[:3]):
        ours, reference = (
            evaluate_boxes(truth, results, images, implementation)
            for implementation in ("hotcoco", "pycocotools")
        )
        np.testing.assert_array_equal(ours.stats, reference.stats)
        np.testing.assert_array_equal(ours.eval["precision"], reference.eval["precision"])


def ids(change: Callable[[int], Any]) -> Callable[[dict, list[dict]], None]:
    """All ids are changed, in annotations and results."""

    def changed(content: dict, results: list[dict]) -> None:
        for each in itertools.chain(*content.values(), results):
            for key in {"id", "image_id", "category_id"} & each.keys():
                each[key] = change(each[key])

    return changed


def extras(**values: Any) -> Callable[[dict, list[dict]], None]:
    """Entries that metrics of boxes do not look at; None removes one."""

    def changed(content: dict, results: list[dict]) -> None:
        for each in itertools.chain(*content.values(), results):
            for key, value in values.items():
                each[key] = value
                if value is None:
                    del each[key]

    return changed


def without_area(content: dict, results: list[dict]) -> None:
    for each in content["annotations"]:
        del each["area"]
        each["iscrowd"] = bool(each["iscrowd"])


@pytest.mark.parametrize("implementation", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize(
    "change",
    [
        ids(lambda i: i - 1),  # an object with the id 0
        ids(lambda i: i - 100),
        ids(lambda i: f"{i:09d}"),
        ids(lambda i: i + 2**65),
        extras(license="CC", date_captured=2016, coco_url=7, segmentation={}, keypoints=1.5),
        extras(width=0.5, height=None, file_name=3, supercategory=1),
        without_area,
    ],
    ids=["from 0", "negative", "texts", "large", "other entries", "no size", "no area"],
)
def test_ids_and_other_entries_change_no_number(change, implementation):
    if implementation == "hotcoco":
        pytest.importorskip("hotcoco")
    truth, results = random_set(3)
    images = truth.getImgIds()
    usual = [evaluate_boxes(truth, results, each, implementation) for each in (None, images[:3])]
    changed, content = COCO(), copy.deepcopy(truth.dataset)
    results = copy.deepcopy(results)
    content["images"].sort(key=lambda each: each["id"])
    change(content, results)
    given = copy.deepcopy(results)
    changed.dataset = content
    changed.createIndex()
    images = [image["id"] for image in content["images"]]
    for expected, each in zip(usual, (None, images[:3])):
        found = evaluate_boxes(changed, results, each, implementation)
        np.testing.assert_array_equal(found.stats, expected.stats)
        np.testing.assert_array_equal(found.eval["precision"], expected.eval["precision"])
    assert results == given and changed.dataset == content


@pytest.mark.parametrize(
    "change, said",
    [
        ({"bbox": [1, 2, 3]}, r"the object 1 of the image 13 .* bbox=\[1, 2, 3\].* four numbers"),
        ({"bbox": None}, "bbox=None"),
        ({"bbox": "1234"}, "bbox='1234'"),
        ({"area": "large"}, "area='large'"),
        ({"iscrowd": "yes"}, "iscrowd='yes'; expected four numbers .* 0 or 1"),
    ],
)
def test_objects_that_cannot_be_evaluated_are_found_before_the_first_batch(dataset, change, said):
    file = Path(MetadataCatalog.get(dataset[0]).json_file)
    content = json.loads(file.read_text())
    content["annotations"][0].update(change)
    file.write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match=said):
        COCOEvaluator(dataset[0])
    COCOEvaluator(dataset[0], tasks=["segm"])  # has no use for boxes


@pytest.mark.parametrize(
    "change, said",
    [
        ({"image_id": 1}, "image_id=1 is not in the annotations; they are of another dataset"),
        ({"category_id": None}, "category_id=None is not in the annotations"),
        ({"bbox": ["1", 2, 3, 4]}, r"bbox=\['1', 2, 3, 4\] .* expected four numbers"),
        ({"score": None}, "score=None; expected .* a number"),
        ({"score": True}, "score=True"),
    ],
)
@pytest.mark.parametrize("implementation", ["hotcoco", "pycocotools"])
def test_results_that_cannot_be_evaluated_are_refused(change, said, implementation):
    if implementation == "hotcoco":
        pytest.importorskip("hotcoco")
    truth, results = random_set(3)
    results[-1] = {**results[-1], **change}
    with pytest.raises(EvaluationError, match=said):
        evaluate_boxes(truth, results, implementation=implementation)


@pytest.fixture
def dataset(tmp_path):
    """A random set, registered; and its images with results as detectors give them."""
    truth, results = random_set(3)
    json_file = tmp_path / "truth.json"
    json_file.write_text(json.dumps(truth.dataset))
    name = "random_boxes"
    ids = {category: index for index, category in enumerate(sorted(truth.cats))}
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(
        json_file=str(json_file),
        thing_classes=[truth.cats[category]["name"] for category in ids],
        thing_dataset_id_to_contiguous_id=ids,
    )
    outputs = []
    for image in truth.dataset["images"]:
        mine = [r for r in results if r["image_id"] == image["id"]]
        found = Instances((480, 640))
        x, y, w, h = torch.tensor([r["bbox"] for r in mine]).reshape(-1, 4).unbind(1)
        found.pred_boxes = Boxes(torch.stack([x, y, x + w, y + h], dim=1))
        found.scores = torch.tensor([r["score"] for r in mine])
        found.pred_classes = torch.tensor([ids[r["category_id"]] for r in mine])
        outputs.append(({"image_id": image["id"]}, {"instances": found}))
    yield name, outputs
    DatasetCatalog.remove(name)
    MetadataCatalog.pop(name, None)


def evaluated(evaluator, outputs, img_ids=None) -> dict[str, float]:
    evaluator.reset()
    for image, output in outputs:
        evaluator.process([image], [output])
    return evaluator.evaluate(img_ids)["bbox"]


@pytest.mark.parametrize("implementation", ["auto", "hotcoco", "pycocotools"])
def test_it_has_the_numbers_of_detectron2s_and_recalls(dataset, tmp_path, implementation):
    if implementation == "hotcoco":
        pytest.importorskip("hotcoco")
    name, outputs = dataset
    folders = [str(tmp_path / part) for part in ("theirs", "ours")]
    theirs = Detectron2COCOEvaluator(name, output_dir=folders[0], use_fast_impl=False)
    ours = COCOEvaluator(name, output_dir=folders[1], implementation=implementation)
    expected, found = evaluated(theirs, outputs), evaluated(ours, outputs)
    assert {key: found[key] for key in expected} == pytest.approx(expected, nan_ok=True, abs=0)
    assert set(found) - set(expected) == set(RECALLS)
    assert all(0 < found[key] <= 100 for key in RECALLS)
    written = [
        json.loads((tmp_path / part / "coco_instances_results.json").read_text())
        for part in ("theirs", "ours")
    ]
    assert written[0] == written[1] and {r["category_id"] for r in written[1]} == {1, 2, 4, 7}
    some = [image["image_id"] for image, _ in outputs[:4]]
    assert evaluated(ours, outputs, some)["AP"] == pytest.approx(
        evaluated(theirs, outputs, some)["AP"], abs=0
    )


@pytest.mark.parametrize("tasks", [None, ("bbox",)])
def test_without_detections_there_are_the_same_metrics_without_numbers(dataset, tasks):
    name, outputs = dataset
    empty = [(image, {"instances": output["instances"][:0]}) for image, output in outputs]
    usual, found = (evaluated(COCOEvaluator(name, tasks), each) for each in (outputs, empty))
    assert [*found] == [*usual] and {"AR100", "AP"} < {*found} and len(found) == 12 + 4
    assert np.isnan([*found.values()]).all()


def test_without_the_extra_the_reference_is_used_unless_the_extra_is_asked_for(
    dataset, monkeypatch
):
    name, outputs = dataset
    usual = evaluated(COCOEvaluator(name), outputs)
    hide("hotcoco", monkeypatch)
    assert evaluated(COCOEvaluator(name), outputs) == pytest.approx(usual, nan_ok=True, abs=0)
    with pytest.raises(MissingExtraError, match=r"dense_kd\[evaluation\]"):
        COCOEvaluator(name, implementation="hotcoco")


def test_another_implementation_is_refused(dataset):
    with pytest.raises(ValueError, match="expected auto or one of hotcoco, pycocotools"):
        COCOEvaluator(dataset[0], implementation="fast")
