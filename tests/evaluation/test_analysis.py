"""Error types against tidecv's numbers; calibration and intervals by hand."""

from __future__ import annotations

import json
import math

import pytest

from dense_kd.errors import MissingExtraError
from dense_kd.evaluation.analysis import Analysis, compare
from dense_kd.evaluation.errors import EvaluationError
from helpers.builders import GOLDEN
from helpers.missing_extras import hide
from helpers.random_boxes import random_set

pytest.importorskip("hotcoco")

TRUTH, RESULTS = str(GOLDEN / "coco_gt.json"), str(GOLDEN / "coco_dets.json")
EXPECTED = json.loads((GOLDEN / "coco_expected.json").read_text())


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(TRUTH, RESULTS)


def test_metrics_equal_pycocotools_in_all_classes(analysis):
    expected = {name: 100 * value for name, value in EXPECTED["pycocotools_bbox"].items()}
    assert analysis.metrics() == pytest.approx(expected, abs=1e-6)
    aps = {name: metrics["AP"] for name, metrics in analysis.per_class().items()}
    assert aps == pytest.approx(
        {f"c{key}": 100 * value for key, value in EXPECTED["per_category_AP"].items()}, abs=1e-6
    )
    for key in ("AP", "AP50", "AP75"):
        values = [metrics[key] for metrics in analysis.per_class().values()]
        assert sum(values) / len(values) == pytest.approx(expected[key])


@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_error_types_equal_tidecvs(analysis, iou):
    expected, found = EXPECTED[f"tide_{iou}"], analysis.error_types(iou)
    assert found.ap == pytest.approx(expected["AP"], abs=1e-3)
    assert found.main == pytest.approx(expected["main"], abs=1e-3)
    assert found.special == pytest.approx(expected["special"], abs=1e-3)
    assert found.counts == expected["counts"]


@pytest.mark.parametrize(
    "options, said", [({"iou": 0.52}, "0.5, 0.55"), ({"background": 0.5}, "background=0.5")]
)
def test_thresholds_that_are_none_are_refused(analysis, options, said):
    with pytest.raises(ValueError, match=said):
        analysis.error_types(**options)


def test_calibration_is_the_mean_distance_of_score_and_accuracy():
    truth, _ = random_set(0)
    objects = [a for a in truth.dataset["annotations"] if not a["iscrowd"]][:4]
    assert len(objects) == 4
    # Of four detections with a score of 0.75 three are right, and the one with 0.25 is.
    results = [{"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"],
                "score": 0.75} for a in objects]  # fmt: skip
    results[0]["bbox"] = [600, 440, 5, 5]
    results[3]["score"] = 0.25
    results.append({**results[0], "score": 0.75, "bbox": [0, 0, 3, 3]})
    found = Analysis(truth, results).calibration()
    # 0.75 x 4: right are two of four; 0.25 x 1: one of one.
    assert found.ece == pytest.approx((4 * 0.25 + 1 * 0.75) / 5)
    assert found.mce == pytest.approx(0.75)
    assert sum(each["count"] for each in found.bins) == 5


def test_a_run_does_not_differ_from_itself_and_clearly_from_one_without_most_detections():
    truth, results = random_set(1)
    whole, half = Analysis(truth, results), Analysis(truth, results[::4])
    same = compare(whole, whole, samples=50)
    assert {(d.value, d.low, d.high, d.is_clear) for d in same.values()} == {(0, 0, 0, False)}
    worse = compare(whole, half, samples=200)["AP"]
    assert worse.low <= worse.value <= worse.high < 0 and worse.is_clear
    assert worse.value == pytest.approx(half.metrics()["AP"] - whole.metrics()["AP"])
    assert compare(whole, half, samples=200)["AP"] == worse
    assert compare(whole, half, samples=200, confidence=0.5)["AP"].low > worse.low


def test_the_difference_of_a_metric_that_is_undefined_is_left_out():
    truth, results = random_set(1)
    objects = [{**a, "area": 100.0} for a in truth.dataset["annotations"]]  # small ones alone
    truth.dataset["annotations"] = objects
    truth.createIndex()
    analysis = Analysis(truth, results)
    assert math.isnan(analysis.metrics()["APl"]) and not math.isnan(analysis.metrics()["APs"])
    differences = compare(analysis, analysis, samples=20)
    assert "APs" in differences
    assert not {"APm", "APl", "ARm", "ARl"} & set(differences)


def test_a_class_without_objects_has_no_numbers():
    truth, results = random_set(2)
    assert math.isnan(Analysis(truth, results).per_class()["c7"]["AP"])


def test_what_cannot_be_analysed_is_said(tmp_path, monkeypatch):
    (tmp_path / "no.json").write_text("[")
    (tmp_path / "truth.json").write_text("{}")
    for file, said in (("no.json", "cannot be read"), ("none.json", "cannot be read"),
                       ("truth.json", "expected a list")):  # fmt: skip
        with pytest.raises(EvaluationError, match=said):
            Analysis(TRUTH, str(tmp_path / file))
    with pytest.raises(EvaluationError, match="no detections"):
        Analysis(TRUTH, [])
    with pytest.raises(EvaluationError, match="image_id=-5 is not in the annotations"):
        Analysis(TRUTH, [{"image_id": -5, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}])
    hide("hotcoco", monkeypatch)
    with pytest.raises(MissingExtraError, match="pip install"):
        Analysis(TRUTH, RESULTS)
