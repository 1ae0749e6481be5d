"""A part of a dataset is evaluated as such where the evaluator can, and is said where it cannot."""

from __future__ import annotations

import json

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    PascalVOCDetectionEvaluator,
)
from detectron2.structures import Boxes, BoxMode, Instances
from torch import nn

from dense_kd.engine.dry_run.evaluating import evaluate_part
from dense_kd.engine.dry_run.unchanged import unchanged
from helpers.voc_sets import VOCObject, register_voc


@pytest.fixture(autouse=True)
def catalogs():
    with unchanged():
        yield


class Perfect(nn.Module):
    """Detects the objects of dataset dicts, in training mode none."""

    def __init__(self, images: list[dict]):
        super().__init__()
        self.objects = {image["image_id"]: image["annotations"] for image in images}

    def forward(self, batch: list[dict]) -> list[dict]:
        assert not self.training and not torch.is_grad_enabled()
        return [{"instances": self.detect(image)} for image in batch]

    def detect(self, image: dict) -> Instances:
        objects = self.objects[image["image_id"]]
        found = Instances((image["height"], image["width"]))
        boxes = [BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS) for x in objects]
        found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
        found.scores = torch.ones(len(objects))
        found.pred_classes = torch.tensor([x["category_id"] for x in objects])
        return found


def coco() -> tuple[list[dict], COCOEvaluator]:
    images = DatasetCatalog.get("checked_val")
    return images, COCOEvaluator("checked_val", ("bbox",), use_fast_impl=False)


def test_coco_counts_the_images_that_it_was_shown(tmp_path):
    images, evaluator = coco()
    batches = [[image] for image in images[:2]]
    facts, warnings = evaluate_part(evaluator, Perfect(images), batches, str(tmp_path), False)
    assert facts.metrics["bbox/AP"] == pytest.approx(100) and warnings == []
    assert facts.how == "COCOEvaluator on these images only" and facts.seconds_per_image > 0
    # Over the whole dataset, the same detections are half of what there is.
    facts, _ = evaluate_part(evaluator, Perfect(images), batches, str(tmp_path), True)
    assert facts.metrics["bbox/AP"] < 90
    assert all("AP-" not in name for name in facts.metrics)


@pytest.fixture
def voc(tmp_path):
    """Four images with an object of both classes each."""
    objects = [VOCObject("cat", (3, 5, 12, 30)), VOCObject("dog", (20, 5, 29, 30))]
    register_voc("tried_voc", tmp_path, [objects] * 4)
    return DatasetCatalog.get("tried_voc")


def test_voc_looks_for_the_images_that_it_was_shown(voc, tmp_path, capsys):
    for index in (2, 3):  # it would stop at them
        (tmp_path / "Annotations" / f"{index:06d}.xml").unlink()
    evaluator = PascalVOCDetectionEvaluator("tried_voc")
    facts, warnings = evaluate_part(evaluator, Perfect(voc), [voc[:2]], str(tmp_path), False)
    assert facts.metrics == {} and warnings == [] and capsys.readouterr().out == ""
    assert facts.how.startswith("PascalVOCDetectionEvaluator on these images only; its numbers")
    assert (facts.num_images, facts.evaluators) == (2, ["PascalVOCDetectionEvaluator"])


def test_voc_on_all_images_has_its_numbers(voc, tmp_path):
    evaluator = PascalVOCDetectionEvaluator("tried_voc")
    facts, _ = evaluate_part(evaluator, Perfect(voc), [voc], str(tmp_path), True)
    assert facts.metrics == pytest.approx({"bbox/AP": 100, "bbox/AP50": 100, "bbox/AP75": 100})


class Counting(DatasetEvaluator):
    """An evaluator of somebody, which knows nothing of parts."""

    def reset(self):
        self.seen = 0

    def process(self, inputs, outputs):
        self.seen += len(inputs)

    def evaluate(self):
        return {"seen": {"images": self.seen, "share": float("nan")}}


def test_the_numbers_of_another_evaluator_are_left_out_where_images_are(tmp_path):
    images, evaluator = coco()
    batches = [[image] for image in images]
    several = DatasetEvaluators([Counting(), evaluator])
    facts, _ = evaluate_part(several, Perfect(images), batches[:1], str(tmp_path), False)
    assert "seen/images" not in facts.metrics and "bbox/AP" in facts.metrics
    assert "Counting, whose numbers are left out" in facts.how
    facts, _ = evaluate_part([Counting()], Perfect(images), batches, str(tmp_path), True)
    assert facts.metrics == {"seen/images": 4, "seen/share": None}
    assert json.dumps(facts.metrics)
