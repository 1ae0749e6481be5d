"""The score that makes a detection an object, on counts that can be checked by hand."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest
from pycocotools.coco import COCO

from dense_kd.evaluation.errors import EvaluationError
from dense_kd.evaluation.score_threshold import best_threshold


def truth(*objects: tuple[int, float, int]) -> COCO:
    """Squares of 10 pixels: (class, x, whether it is a crowd), on one image."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": 1, "height": 99, "width": 999}],
            "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
            "annotations": [
                {"id": i, "image_id": 1, "category_id": c, "bbox": [x, 0, 10, 10], "area": 100,
                 "iscrowd": crowd}
                for i, (c, x, crowd) in enumerate(objects, start=1)
            ],
        }  # fmt: skip
        coco.createIndex()
    return coco


def detection(score: float, category: int, x: float) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category, "bbox": [x, 0, 10, 10], "score": score}


OBJECTS = truth((1, 0, 0), (1, 100, 0), (2, 200, 0), (2, 300, 1))


def test_it_is_the_highest_score_of_the_largest_f1_over_all_classes():
    results = [
        detection(0.9, 1, 0),  # right
        detection(0.8, 1, 400),  # nothing is there
        detection(0.7, 2, 201),  # right: IoU 0.82
        detection(0.65, 2, 300),  # in a crowd: does not count
        detection(0.6, 1, 100),  # right
        detection(0.5, 1, 200),  # of another class
        detection(0.4, 1, 101),  # a second one of an object
    ]
    best = best_threshold(OBJECTS, results)
    # F1 is 2 * 1 / (1 + 3) at 0.9, 1/(2+3)*2 at 0.8, 4/(3+3) at 0.7, 6/(4+3) at 0.6, then lower.
    assert (best.score, best.precision, best.recall) == (0.6, 0.75, 1.0)
    assert best.f1 == pytest.approx(6 / 7)
    assert str(best) == (
        "score_thresh=0.6: 75.0 % of the detections are right and 100.0 % of the objects are "
        "found (F1 0.857, at an IoU of 0.5)"
    )
    assert best_threshold(OBJECTS, results, iou=0.9).recall == pytest.approx(2 / 3)


def test_a_score_between_two_steps_is_kept_by_the_lower_one():
    assert best_threshold(OBJECTS, [detection(0.619, 1, 0)]).score == 0.61


def test_without_detections_or_objects_nothing_is_chosen():
    with pytest.raises(EvaluationError, match="nothing was detected"):
        best_threshold(OBJECTS, [])
    with pytest.raises(EvaluationError, match="have no object"):
        best_threshold(truth((1, 0, 1)), [detection(0.5, 1, 0)])


@pytest.mark.parametrize(
    "found", [detection(0.9, 2, 0), detection(0.9, 1, 50), detection(0.005, 1, 0)]
)
def test_without_a_right_detection_of_some_score_nothing_is_chosen(found):
    said = f"of 1 detections .* scores of up to {found['score']}, none from 0.01 on is right"
    with pytest.raises(EvaluationError, match=said):
        best_threshold(OBJECTS, [found])


def test_all_objects_of_an_image_count_where_they_are_many():
    objects = truth(*((1, 20 * i, 0) for i in range(150)))
    best = best_threshold(objects, [detection(0.9, 1, 20 * i) for i in range(150)])
    assert (best.precision, best.recall, best.f1) == (1, 1, 1)
