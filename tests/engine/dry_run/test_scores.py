"""What a detector scores on a few images, and what is said of a teacher that scores nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances

from dense_kd.engine.dry_run.results import ScoreFacts
from dense_kd.engine.dry_run.scores import scores
from dense_kd.engine.dry_run.teacher import teacher_warnings

SAME = {0: 0, 1: 1, 2: 2}


def image(*objects: tuple[int, list[float]], iscrowd: int = 0) -> dict:
    return {
        "annotations": [
            {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": c, "iscrowd": iscrowd}
            for c, box in objects
        ]
    }


def detections(*found: tuple[int, list[float], float]) -> Instances:
    result = Instances((64, 64))
    boxes = [[x, y, x + w, y + h] for _, (x, y, w, h), _ in found]
    result.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    result.pred_classes = torch.tensor([c for c, _, _ in found], dtype=torch.int64)
    result.scores = torch.tensor([score for _, _, score in found])
    return result


IMAGES = [
    image((0, [0, 0, 10, 10]), (1, [20, 20, 8, 16])),
    image((2, [5, 5, 30, 30])),
    image(),
]


def test_detections_that_are_the_objects_score_100():
    found = [
        detections((0, [0, 0, 10, 10], 0.9), (1, [20, 20, 8, 16], 0.8)),
        detections((2, [5, 5, 30, 30], 0.5)),
        detections(),
    ]
    score = scores(IMAGES, found, SAME)
    assert (score.ap, score.ap50, score.ap50_any_class) == pytest.approx((100, 100, 100))
    assert (score.num_images, score.num_objects, score.num_detections) == (3, 3, 3)
    assert score.best_score == pytest.approx((0.9 + 0.5) / 3)
    assert teacher_warnings("teacher", score) == []


def test_right_boxes_of_classes_in_another_order_are_told_from_wrong_boxes():
    found = [
        detections((1, [0, 0, 10, 10], 0.9), (2, [20, 20, 8, 16], 0.8)),
        detections((0, [5, 5, 30, 30], 0.5)),
        detections(),
    ]
    score = scores(IMAGES, found, SAME)
    assert score.ap50 == 0 and score.ap50_any_class == pytest.approx(100)
    (text,) = teacher_warnings("teacher", score)
    assert "probably in another order" in text and "class_map='by_name'" in text
    assert scores(IMAGES, found, {1: 0, 2: 1, 0: 2}).ap == pytest.approx(100)


def test_classes_without_a_counterpart_count_where_classes_do_not_matter():
    found = [detections((7, [0, 0, 10, 10], 0.9)), detections(), detections()]
    score = scores(IMAGES, found, {7: 0})
    assert score.ap50 == pytest.approx(100 / 3)
    score = scores(IMAGES, found, {})
    assert score.ap is None and score.ap50_any_class == pytest.approx(33.66, abs=0.01)
    assert teacher_warnings("teacher", score) == []


def test_without_objects_nothing_is_defined_and_nothing_is_warned_of():
    for images in ([image()], [image((0, [0, 0, 10, 10]), iscrowd=1)]):
        score = scores(images, [detections((0, [0, 0, 10, 10], 0.9))], SAME)
        assert (score.ap, score.ap50, score.ap50_any_class) == (None, None, None)
        assert score.num_objects == 0 and teacher_warnings("teacher", score) == []


def test_a_teacher_that_finds_nothing_is_warned_of():
    score = scores(IMAGES, [detections() for _ in IMAGES], SAME)
    assert (score.ap, score.best_score) == (0, 0)
    for facts in (score, dataclasses.replace(score, ap=None, ap50=None)):
        assert "finds next to nothing" in teacher_warnings("teacher", facts)[0]
    assert isinstance(score, ScoreFacts)
