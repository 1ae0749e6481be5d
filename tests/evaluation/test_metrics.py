"""What evaluators say that they give is what they give."""

from __future__ import annotations

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, PascalVOCDetectionEvaluator

from dense_kd.evaluation import CrowdHumanEvaluator, VOCEvaluator
from dense_kd.evaluation.metrics import lower_is_better, metric_names
from helpers.voc_sets import VOCObject, register_voc


@pytest.fixture
def dataset(tmp_path):
    """Two images without a detection; as each library reads them."""
    register_voc("a_voc", tmp_path, [[VOCObject("cat", (1, 1, 10, 10))], []])
    DatasetCatalog.register("people", lambda: [])
    yield
    for name in ("a_voc", "people"):
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def given(evaluator) -> set[str]:
    evaluator.reset()
    results = evaluator.evaluate()
    return {f"{task}/{name}" for task, metrics in results.items() for name in metrics}


class PerClass(PascalVOCDetectionEvaluator):
    """Gives what detectron2's does not."""

    def evaluate(self) -> dict:
        return {"bbox": {"AP-cat": 1.0}}


def test_the_names_are_those_of_an_evaluation(dataset):
    for kind in (VOCEvaluator, PascalVOCDetectionEvaluator):
        evaluator = kind("a_voc")
        assert metric_names(evaluator) == given(evaluator)
        assert lower_is_better(evaluator) == set()


def test_the_miss_rate_of_crowdhuman_is_better_when_lower(dataset, monkeypatch):
    numbers = {"AP": 0.9, "MR": 0.4, "JI": 0.8}
    monkeypatch.setattr("dense_kd.evaluation.crowdhuman.metrics", lambda *args: numbers)
    evaluator = CrowdHumanEvaluator("people")
    assert metric_names(evaluator) == given(evaluator)
    assert lower_is_better(evaluator) == {"bbox/MR"}


def test_of_others_nothing_is_known_unless_they_say_it(dataset):
    assert metric_names(PerClass("a_voc")) is None
    assert metric_names(DatasetEvaluator()) is None
    assert lower_is_better(DatasetEvaluator()) == set()
