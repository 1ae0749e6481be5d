"""Datasets that are counted as one."""

from __future__ import annotations

import contextlib
import io

import pytest
from pycocotools.coco import COCO

from dense_kd.study import StudyError
from dense_kd.study.measuring import pooled


def dataset(categories):
    """An image with an object of each class, and all of them found."""
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 1, "width": 100, "height": 100, "file_name": "a.png"}],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
        "annotations": [
            {"id": place, "image_id": 1, "category_id": number, "iscrowd": 0,
             "bbox": [30 * place, 10, 20, 20], "area": 400}
            for place, number in enumerate(categories)
        ],
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    found = [
        {key: each[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
        for each in truth.anns.values()
    ]
    return truth, found


def test_numbers_of_classes_are_those_of_the_first_dataset():
    truth, found = pooled([dataset({1: "cat", 2: "dog"}), dataset({10: "cat", 20: "dog"})])
    assert [each["category_id"] for each in truth.dataset["annotations"]] == [1, 2, 1, 2]
    assert [each["category_id"] for each in found] == [1, 2, 1, 2]
    assert [each["image_id"] for each in found] == [1, 1, 2, 2]
    assert truth.dataset["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


@pytest.mark.parametrize(
    "other", [{1: "dog", 2: "cat"}, {1: "cat"}, {1: "cat", 2: "dog", 3: "bird"}]
)
def test_datasets_of_other_classes_or_in_another_order_are_no_one_dataset(other):
    with pytest.raises(
        StudyError, match=f"classes cat, dog, and .* has {', '.join(other.values())}"
    ):
        pooled([dataset({1: "cat", 2: "dog"}), dataset(other)])
