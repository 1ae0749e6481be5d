"""Curves of errors that are forgiven, by hand and in their order."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from dense_kd.evaluation.coco import evaluate_boxes
from dense_kd.evaluation.error_curves import KINDS, error_curves
from helpers.builders import GOLDEN
from helpers.random_boxes import random_set

BOX = [10.0, 10.0, 100.0, 100.0]
CATEGORIES = [
    {"id": 1, "name": "cat", "supercategory": "animal"},
    {"id": 2, "name": "dog", "supercategory": "animal"},
    {"id": 5, "name": "car", "supercategory": "vehicle"},
]


def truth_of(*objects: tuple[int, list[float]]) -> COCO:
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 1, "width": 640, "height": 480}],
        "categories": CATEGORIES,
        "annotations": [
            {"id": i, "image_id": 1, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
            for i, (c, b) in enumerate(objects, start=1)
        ],
    }
    truth.createIndex()
    return truth


def found(category: int, box: list[float], score: float) -> dict:
    return {"image_id": 1, "category_id": category, "bbox": box, "score": score}


def moved(x: float, y: float = 0.0) -> list[float]:
    return [BOX[0] + x, BOX[1] + y, *BOX[2:]]


@pytest.mark.parametrize(
    "box, category, first",
    [
        (BOX, 1, "C75"),
        (moved(20), 1, "C50"),  # IoU 80 / 120
        (moved(50), 1, "Loc"),  # 50 / 150
    ],
)
def test_a_place_is_forgiven_from_its_iou_on(box, category, first):
    areas = error_curves(truth_of((1, BOX)), [found(category, box, 0.9)]).areas()
    right = [kind for kind in KINDS if areas[kind] == pytest.approx(100)]
    assert right == [*KINDS][[*KINDS].index(first) :]
    assert all(areas[kind] == 0 for kind in KINDS if kind not in right)


@pytest.mark.parametrize("other, first", [(2, "Sim"), (5, "Oth"), (None, "BG")])
def test_a_false_alarm_is_forgiven_as_what_it_is(other, first):
    far = [300.0, 300.0, 90.0, 90.0]
    objects = [(1, BOX)] + ([(other, far)] if other else [])
    alarm, right = found(1, far, 0.9), found(1, BOX, 0.8)
    curves = error_curves(truth_of(*objects), [alarm, right]).per_class["cat"]
    for kind in KINDS:
        forgiven = [*KINDS].index(kind) >= [*KINDS].index(first)
        assert curves[kind] == pytest.approx(1.0 if forgiven else 0.5), kind


def test_a_miss_is_forgiven_last_and_absent_classes_do_not_count():
    truth = truth_of((1, BOX), (1, [300.0, 300.0, 90.0, 90.0]))
    curves = error_curves(truth, [found(1, BOX, 0.9), found(5, BOX, 0.2)])
    assert [*curves.per_class] == ["cat"]
    areas = curves.areas()
    assert areas["BG"] == pytest.approx(100 * 51 / 101) and areas["FN"] == pytest.approx(100)


@pytest.mark.parametrize("seed", range(4))
def test_each_curve_is_above_the_last_and_both_libraries_draw_the_same(seed):
    truth, results = random_set(seed)
    curves = error_curves(truth, results, implementation="pycocotools")
    for of_class in curves.per_class.values():
        for lower, higher in zip([*KINDS], [*KINDS][1:]):
            assert (of_class[lower] <= of_class[higher] + 1e-12).all(), (lower, higher)
    stats = evaluate_boxes(truth, results, implementation="pycocotools").stats
    assert curves.areas()["C50"] == pytest.approx(100 * stats[1])
    assert curves.areas()["C75"] == pytest.approx(100 * stats[2])
    pytest.importorskip("hotcoco")
    others = error_curves(truth, results, implementation="hotcoco")
    for name, of_class in curves.per_class.items():
        for kind in KINDS:
            np.testing.assert_array_equal(of_class[kind], others.per_class[name][kind])


def test_a_file_and_sizes_are_taken():
    results = error_curves(str(GOLDEN / "coco_gt.json"), _golden())
    small = error_curves(str(GOLDEN / "coco_gt.json"), _golden(), area=(0, 32**2))
    assert results.areas()["C50"] == pytest.approx(42.130124943)
    assert small.areas()["C50"] != results.areas()["C50"]


def _golden() -> list[dict]:
    return json.loads((GOLDEN / "coco_dets.json").read_text())


def test_nothing_to_analyse_is_an_error():
    with pytest.raises(ValueError, match="no detections"):
        error_curves(truth_of((1, BOX)), [])
    with pytest.raises(ValueError, match="no objects of these sizes"):
        error_curves(truth_of((1, BOX)), [found(1, BOX, 0.9)], area=(0, 10))
