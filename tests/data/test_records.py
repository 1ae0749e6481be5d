"""Images of registered datasets say what is wrong with them before they are needed."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.structures import BoxMode
from PIL import Image

from dense_kd.data import DatasetError, detection_dataset
from dense_kd.data.records import (
    boxes_without_area,
    catalog_problem,
    missing_files,
    record_problem,
    repeated_ids,
)

BOX = {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}


def image(**entries) -> dict:
    usual = {"file_name": "a.png", "height": 30, "width": 40, "annotations": [dict(BOX)]}
    return {**usual, **entries}


def box(**entries) -> list[dict]:
    return [{**image(), "annotations": [dict(BOX), {**BOX, **entries}]}]


@pytest.mark.parametrize(
    "images",
    [
        [image()],
        (image(), image(annotations=[])),
        [{"file_name": "a.png"}],
        box(bbox=(1.5, 2, 3, 4)),
        box(bbox=[0.1, 0.1, 0.5, 0.5], bbox_mode=0),
        box(bbox=np.float32([1, 2, 3, 4]), bbox_mode=BoxMode.XYXY_ABS),
        box(bbox=[5, 5, 4, 4, 30], bbox_mode=BoxMode.XYWHA_ABS),
        box(category_id=np.int64(0), iscrowd=1),
        box(category_id=0.0, iscrowd=False),
    ],
)
def test_what_detectron2s_mapper_takes_is_right(images, tmp_path):
    assert record_problem(images) == ""
    mapper = DatasetMapper(is_train=True, augmentations=[], image_format="BGR")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    for each in copy.deepcopy(images):
        mapped = mapper({**each, "file_name": str(tmp_path / "a.png")})
        assert ("instances" in mapped) == ("annotations" in each)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (None, "gives None; expected a list of dicts, one for each image"),
        ({0: image()}, "gives dict .*; expected a list"),
        (iter([image()]), "gives list_iterator"),
        ("a.png", "has str .a. for image 0"),
        (["a.png"], "has str .a.png. for image 0; expected a dict"),
        ([image(), {"annotations": []}], "has image 1 with file_name=None: expected a path"),
        ([image(file_name=7)], "has image 0 with file_name=int .7.: expected a path"),
        ([image(width="40")], "a.png with width=40: expected a number of pixels"),
        ([image(height=0)], "height=0: expected a number of pixels"),
        ([image(), {"file_name": "b.png"}], r"b.png with no annotations, .*: expected \[\] if"),
        ([image(annotations=None)], "annotations=None: expected a list of dicts"),
        ([image(annotations={"bbox": [1, 2, 3, 4]})], "annotations=dict .*: expected a list"),
        ([image(annotations=[None])], "None for an annotation: expected a dict"),
        (box(bbox=None), "bbox=None: expected 4 numbers"),
        (box(bbox="1 2 3 4"), "bbox=1 2 3 4: expected 4 numbers"),
        (box(bbox=[1, 2, "3", 4]), "bbox=.*'3', 4"),
        (box(bbox=[1, 2, 3, 4, 5]), "expected 4 numbers"),
        (box(bbox=[1, 2, float("nan"), 4]), "bbox=.*nan"),
        (box(bbox=[1, 2, 3, float("inf")]), "bbox=.*inf"),
        (box(bbox=np.float32([1, 2, 3, 4])), "an array: expected a list, as bbox.tolist"),
        (box(bbox=torch.ones(4)), "an array: expected a list"),
        (box(bbox_mode=None), r"bbox_mode=None: expected BoxMode.XYXY_ABS \(corners\) or"),
        (box(bbox_mode=BoxMode.XYXY_REL), "bbox_mode=.*: expected BoxMode.XYXY_ABS"),
        (box(category_id=None), "category_id=None: expected a whole number"),
        (box(category_id="0"), "category_id=0: expected a whole number"),
        (box(category_id=0.5), "category_id=0.5: expected a whole number"),
        (box(category_id=float("nan")), "category_id=nan: expected a whole number"),
        (box(iscrowd=[0]), r"iscrowd=\[0\]: expected 0 or 1"),
    ],
)
def test_what_would_end_a_run_in_the_middle_is_said_with_the_image(monkeypatch, images, said):
    monkeypatch.setitem(DatasetCatalog.data, "spoilt", lambda: images)
    with pytest.raises(DatasetError, match=f"'spoilt' .no json file known. .*{said}"):
        detection_dataset("spoilt")


def test_a_validation_set_may_have_images_without_annotations(monkeypatch):
    images = [image(), {"file_name": "b.png"}]
    assert record_problem(images, training=False) == ""
    monkeypatch.setitem(DatasetCatalog.data, "good", lambda: images)
    monkeypatch.setitem(DatasetCatalog.data, "fails", lambda: 1 / 0)
    monkeypatch.setitem(DatasetCatalog.data, "bad", lambda: box(bbox=None))
    assert catalog_problem(["good", "fails"]) == ""
    assert catalog_problem(["good", "fails", "bad"]).startswith("bad has a.png with an annotation")


@pytest.mark.parametrize("count", [3, 150])  # a look at each file, or a list of the folder
def test_images_that_do_not_exist_are_found_wherever_they_are_in_the_list(tmp_path, count):
    files = [tmp_path / part / f"{i}.png" for part in ("a", "b") for i in range(count)]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (tmp_path / "a" / "folder.png").mkdir()
    images = [{"file_name": file} for file in files[:1]]
    images += [{"file_name": str(file)} for file in files[1:]]
    images += [{"file_name": "s3://bucket/c.png"}, {}, "d.png"]
    assert missing_files(images) == []
    files[-1].unlink()
    gone = [str(files[-1]), str(tmp_path / "none" / "0.png"), str(tmp_path / "a" / "folder.png")]
    images += [{"file_name": file} for file in gone[1:]]
    assert sorted(missing_files(images)) == sorted(gone)


def test_files_are_looked_for_from_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.png").touch()
    assert missing_files([{"file_name": "a.png"}, {"file_name": "b.png"}]) == ["b.png"]


@pytest.mark.parametrize(
    ("ids", "repeated"),
    [([1, 2, 3], []), (["a", "b"], []), ([1, 2, 1], [1]), ([1, None], [None]), ([0, False], [0])],
)
def test_ids_of_images_tell_them_apart(ids, repeated):
    images = [{"image_id": key} if key is not None else {} for key in ids]
    assert repeated_ids(images) == repeated


@pytest.mark.parametrize(
    ("values", "mode", "inside"),
    [
        ([0, 0, 5, 5], BoxMode.XYWH_ABS, True),
        ([-4, -4, 5, 5], BoxMode.XYWH_ABS, True),
        ([-5, 0, 5, 5], BoxMode.XYWH_ABS, False),
        ([39, 29, 500, 500], BoxMode.XYWH_ABS, True),
        ([40, 0, 5, 5], BoxMode.XYWH_ABS, False),
        ([0, 30, 5, 5], BoxMode.XYWH_ABS, False),
        ([10, 10, 0, 5], BoxMode.XYWH_ABS, False),
        ([10, 10, 5, -1], BoxMode.XYWH_ABS, False),
        ([10, 10, 11, 11], BoxMode.XYXY_ABS, True),
        ([10, 10, 9, 11], BoxMode.XYXY_ABS, False),
    ],
)
def test_boxes_without_a_pixel_are_those_that_detectron2s_mapper_leaves_out(
    tmp_path, values, mode, inside
):
    file = tmp_path / "a.png"
    Image.new("RGB", (40, 30)).save(file)
    images = box(bbox=values, bbox_mode=mode)
    images[0]["file_name"] = str(file)
    assert boxes_without_area(images) == ([] if inside else [str(file)])
    mapper = DatasetMapper(is_train=True, augmentations=[], image_format="BGR")
    assert len(mapper(copy.deepcopy(images[0]))["instances"]) == 1 + inside
    images[0]["annotations"][1]["iscrowd"] = 1
    assert boxes_without_area(images) == []
    assert boxes_without_area([{"file_name": "b.png", "annotations": [BOX]}]) == []
