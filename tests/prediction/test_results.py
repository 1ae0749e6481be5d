"""What a prediction gives: COCO's results and a picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from dense_kd.prediction import Prediction
from helpers.described import picture

COLOURED = (255, 176, 0)  # of class 0


def prediction(boxes, classes=None, size=(40, 60)) -> Prediction:
    found = Instances(size)
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.scores = torch.linspace(0.75, 0.5, len(boxes))
    found.pred_classes = torch.tensor(classes or [0] * len(boxes), dtype=torch.int64)
    image = np.asarray(picture(*size))
    return Prediction("folder/a.jpg", image, found, ["dog", "cat"], [3, 7])


def test_results_are_those_of_coco_with_names():
    made = prediction([[1, 2, 11, 22], [0.5, 0, 30, 4]], [1, 0])
    assert len(made) == 2 and made.labels == ["cat", "dog"]
    assert json.loads(json.dumps(made.to_coco(9))) == [
        {
            "image_id": 9,
            "file_name": "folder/a.jpg",
            "category_id": 7,
            "category": "cat",
            "bbox": [1.0, 2.0, 10.0, 20.0],
            "score": 0.75,
        },
        {
            "image_id": 9,
            "file_name": "folder/a.jpg",
            "category_id": 3,
            "category": "dog",
            "bbox": [0.5, 0.0, 29.5, 4.0],
            "score": 0.5,
        },
    ]
    assert made.instances.pred_boxes.tensor[0].tolist() == [1, 2, 11, 22]  # as it was


def test_nothing_found_is_an_empty_list_and_the_image_as_it_is():
    made = prediction([])
    assert made.to_coco(1) == [] and made.labels == []
    expected = picture(40, 60).resize(made.draw().size)
    assert abs(np.asarray(made.draw(), int).mean() - np.asarray(expected, int).mean()) < 5


@pytest.mark.parametrize(
    "size, drawn", [((40, 60), (900, 600)), ((700, 1000), (1000, 700)), ((8, 400), (1600, 32))]
)
def test_small_images_are_enlarged_and_boxes_lie_where_they_are(size, drawn):
    height, width = size
    box = [width * 0.25, height * 0.25, width * 0.75, height * 0.75]
    picture_drawn = prediction([box], size=size).draw()
    assert picture_drawn.size == drawn
    pixels = np.asarray(picture_drawn)
    middle = drawn[1] // 2
    row = np.flatnonzero((pixels[middle] == COLOURED).all(1))
    assert abs(row.min() - drawn[0] * 0.25) <= 2 and abs(row.max() - drawn[0] * 0.75) <= 2
