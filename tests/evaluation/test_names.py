"""Results that name their image and category."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from dense_kd.evaluation.coco import evaluate_boxes
from dense_kd.evaluation.errors import EvaluationError
from dense_kd.evaluation.names import Names
from helpers.random_boxes import random_set


def names(*images: str) -> Names:
    """Of images with the ids 10, 11, ..., and of the categories 3, a cat, and 1 and 7, dogs."""
    categories = [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 7, "name": "dog"}]
    entries = [{"id": 10 + index, "file_name": name} for index, name in enumerate(images)]
    return Names({"images": entries, "categories": categories})


def numbered_by_name(truth: COCO, results: list[dict]) -> list[dict]:
    """As ``dense-kd predict`` numbers: images from 1 on by name, categories from 0 on."""
    for image in truth.dataset["images"]:
        image["file_name"] = f"images/{999 - image['id']}.png"
    ordered = sorted(truth.dataset["images"], key=lambda image: image["file_name"])
    numbers = {image["id"]: number for number, image in enumerate(ordered, start=1)}
    files = {image["id"]: f"/data/set/{image['file_name']}" for image in ordered}
    categories = truth.dataset["categories"]
    return [
        {
            **each,
            "image_id": numbers[each["image_id"]],
            "file_name": files[each["image_id"]],
            "category_id": [c["id"] for c in categories].index(each["category_id"]),
            "category": truth.cats[each["category_id"]]["name"],
        }
        for each in results
    ]


@pytest.mark.parametrize("implementation", ["hotcoco", "pycocotools"])
def test_results_that_name_image_and_category_score_as_those_with_the_ids_of_the_annotations(
    implementation,
):
    if implementation == "hotcoco":
        pytest.importorskip("hotcoco")
    truth, results = random_set(3)
    expected = evaluate_boxes(truth, results, implementation=implementation).stats
    named = numbered_by_name(truth, results)
    before = json.dumps(named)
    found = evaluate_boxes(truth, named, implementation=implementation).stats
    np.testing.assert_array_equal(found, expected)
    assert json.dumps(named) == before  # they are not written to
    without = [{k: v for k, v in each.items() if not k.endswith("_id")} for each in named]
    found = evaluate_boxes(truth, without, implementation=implementation).stats
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("/data/cam1/001.png", 10),
        ("./cam2/001.png", 11),
        ("..\\photos\\cam2\\001.png", 11),
        ("002.png", 12),
        ("photos/cam1/002.png", 12),
        ("/data/e\u0301.png", 13),  # an accent of its own
        ("deep/cam1/003.png", 15),
    ],
)
def test_a_name_means_the_image_whose_path_is_its_end_or_whose_end_it_is(name, expected):
    images = ("cam1/001.png", "cam2/001.png", "002.png", "\u00e9.png", "003.png", "cam1/003.png")
    assert names(*images).image_id(name) == expected


@pytest.mark.parametrize(
    "annotated, found, said",
    [
        (["a.png", "b.png"], ["c.png"], r"c\.png is not in the annotations: they have a.png, b.pn"),
        (["cam1/a.png"], ["cam2/a.png"], "cam2/a.png is not in the annotations"),
        (["A.png"], ["a.png"], "a.png is not in the annotations"),
        ([], ["a.png"], "they have no file_name"),
        (["cam1/a.png", "d/cam2/a.png"], ["a.png"], "could be cam1/a.png, d/cam2/a.png; detect in"),
        (["a.png"], ["x/a.png", "y/a.png"], "x/a.png and y/a.png would both be the image a.png"),
    ],
)
def test_a_name_that_means_no_image_or_several_is_refused(annotated, found, said):
    known = names(*annotated)
    with pytest.raises(EvaluationError, match=said):
        for name in found:
            known.image_id(name)


def test_a_category_is_that_of_its_name_and_of_several_the_one_with_the_id():
    known = names("a.png")
    assert known.category_id("cat", 0) == 3 and known.category_id("dog", 7) == 7
    with pytest.raises(EvaluationError, match="category='dog' .*2 categories are called so"):
        known.category_id("dog", 3)
    with pytest.raises(EvaluationError, match="category='cow' .*they have cat, dog; expected"):
        known.category_id("cow", 3)


def test_a_detection_without_names_stays_as_it_is():
    plain = {"image_id": 5, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1, "file_name": None}
    assert names("a.png").result(plain) is plain
