from __future__ import annotations

import json

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from dense_kd.data import read_dataset
from helpers.own_datasets import boxes_of, scenes, voc_xml, write_image, write_voc


def photograph(path, orientation, box=(4, 6, 20, 12)):
    """Black, with a white box at `box` of its 40 x 30 stored pixels."""
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif.tobytes())


def white_box(path):
    """x1, y1, x2, y2 of what is white in the image that detectron2 reads."""
    white = read_image(str(path), "L")[:, :, 0] > 128
    (ys,), (xs,) = np.nonzero(white.any(1)), np.nonzero(white.any(0))
    return [int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1]


def dataset_of(tmp_path, sizes, boxes):
    """a.png with these annotations, and two further images."""
    root = write_voc(tmp_path, {"x": [("disc", [1, 1, 9, 9])], "y": [("disc", [1, 1, 9, 9])]})
    text = voc_xml("a.png", [("disc", box) for box in boxes], sizes)
    (root / "Annotations/a.xml").write_text(text)
    return root


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_turned_image_are_taken_as_they_are(tmp_path, orientation):
    root = dataset_of(tmp_path, (40, 30), [])
    path = root / "JPEGImages/a.png"
    photograph(path, orientation)
    seen = white_box(path)
    size = (40, 30) if orientation < 5 else (30, 40)
    (root / "Annotations/a.xml").write_text(voc_xml("a.png", [("disc", seen)], size))
    dataset = read_dataset(root)
    assert boxes_of(dataset.train + dataset.val)["a"] == [(0, seen)]
    assert len(dataset.problems) == 0


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_the_stored_pixels_are_turned_with_the_image(tmp_path, orientation):
    root = dataset_of(tmp_path, (40, 30), [[4, 6, 20, 12]])
    path = root / "JPEGImages/a.png"
    photograph(path, orientation)
    dataset = read_dataset(root)
    assert boxes_of(dataset.train + dataset.val)["a"] == [(0, white_box(path))]
    assert dataset.problems.summary() == "repaired 1 image (boxes turned by its EXIF orientation)"
    record = next(r for r in dataset.train + dataset.val if r["file_name"] == str(path))
    assert (record["width"], record["height"]) == (30, 40)


@pytest.mark.parametrize(
    "size, box, expected, reason",
    [
        ((80, 60), [8, 12, 40, 24], [4, 6, 20, 12], "size not that of the file, boxes scaled"),
        ((20, 15), [2, 3, 10, 6], [4, 6, 20, 12], "size not that of the file, boxes scaled"),
        ((20, 15), [4, 6, 39, 12], [4, 6, 39, 12], "size not that of the file, boxes kept"),
        ((0, 0), [4, 6, 20, 12], [4, 6, 20, 12], "size not that of the file, boxes kept"),
        ((-40, -30), [4, 6, 20, 12], [4, 6, 20, 12], "size not that of the file, boxes kept"),
        ((30, 40), [4, 6, 20, 12], [4, 6, 20, 12], "size not that of the file, boxes kept"),
        (("wide", ""), [4, 6, 20, 12], [4, 6, 20, 12], None),
        (("nan", "1e999"), [4, 6, 20, 12], [4, 6, 20, 12], None),
        ((40.0, 30.0), [4, 6, 20, 12], [4, 6, 20, 12], None),
    ],
)
def test_a_size_that_is_not_the_files_is_repaired(tmp_path, size, box, expected, reason):
    root = dataset_of(tmp_path, size, [box])
    write_image(root / "JPEGImages/a.png", (40, 30))
    dataset = read_dataset(root)
    # VOC's first pixel is 1, of the image that was annotated.
    assert boxes_of(dataset.train + dataset.val)["a"] == [(0, expected)]
    assert [p.reason for p in dataset.problems] == ([reason] if reason else [])
    records = {r["file_name"][-5:]: r for r in dataset.train + dataset.val}
    assert (records["a.png"]["width"], records["a.png"]["height"]) == (40, 30)


def test_the_area_of_an_object_is_kept_but_no_larger_than_its_box(tmp_path):
    boxes = {"kept": [2, 2, 10, 10], "cut": [35, 2, 10, 10], "wrong": [2, 15, 10, 10]}
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": box, "area": -3 if key == "wrong" else 60}
            for key, box in boxes.items()
        ]
        + [{"image_id": 2, "category_id": 1, "bbox": [1, 1, 4, 4]}],
        "categories": [{"id": 1, "name": "disc"}],
    }
    for name in "ab":
        write_image(tmp_path / f"{name}.png", (40, 30))
    (tmp_path / "labels.json").write_text(json.dumps(content))
    dataset = read_dataset(tmp_path)
    first = next(r for r in dataset.train + dataset.val if r["image_id"] == 1)
    assert [a["area"] for a in first["annotations"]] == [60, 50, 100]


def test_what_sticks_out_by_less_than_a_pixel_is_rounding(tmp_path):
    root = dataset_of(tmp_path, (40, 30), [[-0.5, 0, 40.9, 30.5]])
    write_image(root / "JPEGImages/a.png", (40, 30))
    dataset = read_dataset(root)
    assert boxes_of(dataset.train + dataset.val)["a"] == [(0, [0, 0, 40, 30])]
    assert len(dataset.problems) == 0


def test_broken_images_are_dropped_and_listed(tmp_path):
    root = write_voc(tmp_path, scenes(6))
    path = root / "JPEGImages/000.jpg"
    path.write_bytes(path.read_bytes()[:-30])
    (root / "JPEGImages/001.jpg").write_bytes(b"")
    (root / "JPEGImages/002.jpg").unlink()
    (root / "JPEGImages/002.jpg").symlink_to("gone.jpg")
    dataset = read_dataset(root)
    assert len(dataset.train) + len(dataset.val) == 3
    assert dataset.problems.summary() == "dropped 3 images (unreadable)"
    assert [p.file for p in dataset.problems] == [f"JPEGImages/00{i}.jpg" for i in range(3)]
