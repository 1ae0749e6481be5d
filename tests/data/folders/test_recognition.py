from __future__ import annotations

import errno
import os

import pytest
from PIL import Image

from dense_kd.data import DatasetError, read_dataset, write_annotations
from dense_kd.pipeline.records import RECORD
from helpers.own_datasets import (
    OF_SYSTEMS,
    boxes_of,
    scenes,
    write_coco,
    write_image,
    write_voc,
    write_yolo,
)


def write_description(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "make, found",
    [
        (lambda root: None, "found nothing"),
        (lambda root: write_image(root / "cells/a.jpg"), r"found cells/ \(1 .jpg\)"),
        (lambda root: (root / "a.csv").write_text("a,b"), r"found / \(1 .csv\)"),
        (lambda root: (root / "a.json").write_text("{"), r"found / \(1 .json\)"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused_with_what_was_looked_for(tmp_path, make, found):
    make(tmp_path)
    with pytest.raises(DatasetError, match=f"looked for COCO .* Pascal VOC .* YOLO .*{found}"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "name, message",
    [
        ("gone", "gone does not exist"),
        ("a.jpg", "a.jpg is neither a folder nor a .json or .yaml file"),
        ("empty.yaml", "describes no dataset"),
        ("broken.yaml", "is no valid YAML"),
        ("binary.yaml", "is no text in UTF-8"),
    ],
)
def test_a_path_that_is_no_dataset_is_refused(tmp_path, name, message):
    write_image(tmp_path / "a.jpg")
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "broken.yaml").write_text("train: [")
    (tmp_path / "binary.yaml").write_bytes(b"train: \xff")
    with pytest.raises(DatasetError, match=message):
        read_dataset(tmp_path / name)


def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    write_coco(tmp_path / "train.json", scenes(3), tmp_path / "train")
    (tmp_path / "more").mkdir()
    scandir = os.scandir

    def refuse(path="."):
        if os.fspath(path) == str(tmp_path / "more"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match=r"more cannot be read \(Permission denied\)"):
        read_dataset(tmp_path)


def test_annotations_in_two_formats_need_a_choice(tmp_path):
    write_coco(tmp_path / "labels.json", scenes(4), tmp_path / "images")
    write_yolo(tmp_path / "images", tmp_path / "labels", scenes(4))
    (tmp_path / "classes.txt").write_text("round\nsquare\n")
    with pytest.raises(DatasetError, match="coco .labels.json. and yolo .images.*layout='coco' or"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, layout="coco").classes == ["disc", "square"]
    assert read_dataset(tmp_path, layout="yolo").classes == ["round", "square"]
    with pytest.raises(DatasetError, match="not recognised as 'voc'"):
        read_dataset(tmp_path, layout="voc")
    with pytest.raises(ValueError, match="layout='cocco': expected one of"):
        read_dataset(tmp_path, layout="cocco")


def test_several_files_that_name_no_part_need_a_choice(tmp_path):
    for name in ("a", "b"):
        write_coco(tmp_path / f"{name}.json", scenes(2), tmp_path / "images")
    with pytest.raises(DatasetError, match="name no part .*: a.json, b.json; expected one file"):
        read_dataset(tmp_path)


def test_a_part_that_is_named_twice_needs_a_choice(tmp_path):
    for name in ("train2014", "train2017"):
        write_coco(tmp_path / f"annotations/instances_{name}.json", scenes(2), tmp_path / name)
    with pytest.raises(DatasetError, match="are all of 'train': annotations/instances_train2014"):
        read_dataset(tmp_path)


def test_a_dataset_without_training_images_is_refused(tmp_path):
    write_coco(tmp_path / "val.json", scenes(2), tmp_path / "images")
    write_coco(tmp_path / "test.json", scenes(2), tmp_path / "images")
    with pytest.raises(DatasetError, match="has no training images, only test and val"):
        read_dataset(tmp_path)


def test_images_in_folders_with_and_without_a_part_need_a_choice(tmp_path):
    for part in ("train", "more"):
        write_yolo(tmp_path / "images" / part, tmp_path / "labels" / part, scenes(2))
    (tmp_path / "classes.txt").write_text("disc\nsquare\n")
    with pytest.raises(DatasetError, match="others whose folders name no part: images/more"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "train, val",
    [("images/train", "images/val"), ("./images/train/", "images/val"), ("train.txt", "val.txt"),
     ("[images/train]", "[images/val]"), ("../images/train", "../images/val")],
)  # fmt: skip
@pytest.mark.parametrize("names", ["[round, flat]", "{1: flat, 0: round}"])
def test_the_data_yaml_of_yolo_is_read(tmp_path, train, val, names):
    root = tmp_path / "cells"
    for part, count in (("train", 3), ("val", 2)):
        write_yolo(root / "images" / part, root / "labels" / part, scenes(count))
        listed = [f"./images/{part}/{stem}.png\n" for stem in scenes(count)]
        write_description(root / f"{part}.txt", "".join(listed))
    text = f"train: {train}\nval: {val}\nnc: 2\nnames: {names}\nroboflow: {{version: 1}}\n"
    path = write_description(root / "data.yaml", text)
    for dataset in (read_dataset(path), read_dataset(root)):
        assert (dataset.name, dataset.layout) == ("cells", "yolo")
        assert dataset.classes == ["round", "flat"]
        assert (len(dataset.train), len(dataset.val)) == (3, 2)
        assert all(len(boxes) == 2 for boxes in boxes_of(dataset.val).values())


def write_roboflow(root, parts):
    for part in parts:
        write_yolo(root / part / "images", root / part / "labels", scenes(3))
    listed = "train: ../train/images\nval: ../valid/images\nnames: [disc, square]\n"
    return write_description(root / "data.yaml", listed)


def test_a_path_that_may_be_of_another_dataset_is_refused_with_both(tmp_path):
    path = write_roboflow(tmp_path / "ds1", ("train", "valid"))
    assert len(read_dataset(path).train) == 3
    write_yolo(tmp_path / "train/images", tmp_path / "train/labels", scenes(2))
    both = rf"train=.* may be {tmp_path}/train/images, .* or {tmp_path}/ds1/train/images"
    for given in (path, path.parent):
        with pytest.raises(DatasetError, match=f"{both}.* in full"):
            read_dataset(given)
    path.write_text(path.read_text().replace("../train", str(tmp_path / "ds1/train")))
    assert len(read_dataset(path).train) == 3


def test_parts_are_not_taken_from_two_datasets(tmp_path):
    path = write_roboflow(tmp_path / "ds1", ("train",))
    write_yolo(tmp_path / "valid/images", tmp_path / "valid/labels", scenes(2))
    with pytest.raises(DatasetError, match=r"val \(.*/valid/images\) .*, but train .* in one way"):
        read_dataset(path)


def test_a_description_takes_annotations_of_any_layout(tmp_path):
    write_voc(tmp_path / "voc", scenes(5))
    write_description(tmp_path / "train.txt", "000\n001\n002\n")
    write_description(tmp_path / "val.txt", "003\n")
    path = write_description(
        tmp_path / "cells.yaml",
        "name: my cells\npath: voc\nclasses: [square, disc]\n"
        "train: {annotations: Annotations, images: JPEGImages, list: ../train.txt}\n"
        "val: {annotations: Annotations, list: ../val.txt}\n",
    )
    dataset = read_dataset(path)
    assert (dataset.name, dataset.layout, dataset.root) == ("my cells", "voc", tmp_path / "voc")
    assert dataset.classes == ["square", "disc"]
    assert (len(dataset.train), len(dataset.val)) == (3, 1)

    write_coco(tmp_path / "coco/a.json", scenes(5), tmp_path / "coco/one")
    others = {f"v{stem}": objects for stem, objects in scenes(2).items()}
    write_coco(tmp_path / "coco/b.json", others, tmp_path / "coco/two")
    path.write_text(
        "train: {annotations: coco/a.json, images: coco/one}\n"
        "val: {annotations: coco/b.json, images: coco/two}\n"
    )
    dataset = read_dataset(path)
    assert (dataset.layout, len(dataset.train), len(dataset.val)) == ("coco", 5, 2)

    write_yolo(tmp_path / "yolo/pictures", tmp_path / "yolo/text", scenes(5))
    path.write_text(
        "path: yolo\ntrain: {images: pictures, annotations: text}\nclasses: names.txt\n"
    )
    write_description(tmp_path / "yolo/names.txt", "disc\nsquare\n")
    dataset = read_dataset(path)
    assert (dataset.layout, len(dataset.train), len(dataset.val)) == ("yolo", 4, 1)
    assert all(len(boxes) == 2 for boxes in boxes_of(dataset.train).values())


@pytest.mark.parametrize(
    "text, message",
    [
        ("train: {image: images}", "train: no such key 'image'; did you mean images?"),
        ("train: {images: images}\nclases: [a]", "no such key 'clases'; did you mean classes?"),
        ("train: {images: images}", "names no classes"),
        ("train: {images: pictures}", "train.images='pictures': no such file or folder; tried"),
        ("train: {annotations: images}", "expected layout: coco"),
        ("train: {annotations: a.csv}", "expected layout: coco"),
        ("train: {annotations: images}\nlayout: coco", "is not what coco needs"),
        ("train: {images: images}\nlayout: 7", "layout=7; expected layout: coco"),
        ("train: {}", "expected annotations: FILE or FOLDER"),
        (f"train: {'x' * 5000}\nnames: [a]", "train='xxx.*: no such file or folder"),
        ("train: {annotations: /dev/null}", "expected layout: coco"),
        ("train: 5\nnames: [a]", "train=5: expected a path"),
        ("train: []\nnames: [a]", r"train=\[\]: expected a path"),
        ("path: 3\ntrain: images\nnames: [a]", "path=3: expected a folder"),
        ("train: images\nnames: [a, yes]", "names has True, which YAML does not read as text"),
        ("train: images\nnames: {0: a, 2: b}", r"names has the indices \[0, 2\]; expected 0 to 1"),
        ("train: images\nnames: 5", "names=5: expected a list"),
        ("train: images\nnames: [a, a]", "but 'a' is one"),
        ("train: images\nnc: 3\nnames: [a, b]", "nc=3, but names has 2 names"),
        ("train: images\nname: [x]\nnames: [a]", r"name=\['x'\]: expected a text"),
        ("val: images", "describes no dataset: .* got the keys .'val'"),
    ],
)
def test_a_description_that_is_wrong_is_refused_with_the_key(tmp_path, text, message):
    write_image(tmp_path / "images/a.png")
    (tmp_path / "a.csv").touch()
    with pytest.raises(DatasetError, match=message):
        read_dataset(write_description(tmp_path / "own.yaml", text))


def test_classes_that_are_listed_must_cover_those_of_the_boxes(tmp_path):
    write_voc(tmp_path, scenes(3))
    path = write_description(
        tmp_path / "own.yaml", "train: {annotations: Annotations}\nclasses: [disc, ring]"
    )
    with pytest.raises(DatasetError, match=r"own.yaml does not name: 'square' \(3 boxes\), first"):
        read_dataset(path)


def test_only_headers_are_read_of_whole_images(tmp_path, monkeypatch):
    write_coco(tmp_path / "labels.json", scenes(3), tmp_path / "images", suffix=".jpg")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    assert len(read_dataset(tmp_path).train) == 2


@pytest.mark.parametrize("options", [{"val_fraction": 0}, {"val_fraction": 1}, {"seed": -1}])
def test_options_out_of_their_range_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        read_dataset(tmp_path, **options)


def test_a_pipe_among_the_files_is_not_waited_for(tmp_path):
    write_coco(tmp_path / "train.json", scenes(3), tmp_path / "images")
    os.mkfifo(tmp_path / "more.json")
    os.mkfifo(tmp_path / "more.xml")
    assert read_dataset(tmp_path).layout == "coco"


@pytest.mark.parametrize("place", ["out", "output/distill/x"])
@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_what_a_distillation_has_written_into_the_folder_is_no_part_of_it(tmp_path, kind, place):
    root = tmp_path / "data"
    if kind == "coco":
        write_coco(root / "annotations.json", scenes(5), root / "images")
    elif kind == "voc":
        write_voc(root, scenes(5))
    else:
        write_yolo(root / "images", root / "labels", scenes(5))
        (root / "classes.txt").write_text("disc\nsquare\n")
    before = read_dataset(root)
    (root / place / "data").mkdir(parents=True)
    write_annotations(before, root / place / "data")
    write_image(root / place / "000.png")
    (root / place / RECORD).write_text("{}")
    again = read_dataset(root)
    assert (again.train, again.val, again.layout) == (before.train, before.val, before.layout)
    assert [str(p) for p in again.problems if p not in [*before.problems]] == [
        f"noted folder: {place}: written by dense-kd distill, and not read"
    ]


@pytest.mark.parametrize("folder", OF_SYSTEMS)
@pytest.mark.parametrize("described", [False, True])
def test_thumbnails_and_deleted_images_are_no_data(tmp_path, folder, described):
    write_yolo(tmp_path / "images", tmp_path / "labels", scenes(4))
    write_description(tmp_path / "classes.txt", "disc\nsquare\n")
    if described:
        write_description(tmp_path / "data.yaml", "train: images\nnames: [disc, square]")
    write_image(tmp_path / "images" / folder / "000.png/SYNOPHOTO_THUMB_M.jpg")
    write_image(tmp_path / "images" / folder / "old.png")
    dataset = read_dataset(tmp_path)
    assert sorted(boxes_of(dataset.train + dataset.val)) == ["000", "001", "002", "003"]
