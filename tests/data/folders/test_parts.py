"""Which part of a dataset the names of its folders say."""

from __future__ import annotations

from pathlib import Path

import pytest

from dense_kd.data import DatasetError, read_dataset
from dense_kd.data.folders.tree import part_of_path
from helpers.own_datasets import scenes, voc_xml, write_coco, write_image, write_yolo


def write_folder(root, kind, folder, count=3):
    """Some images with labels, whose names occur in no other folder."""
    content = {f"{folder.replace('/', '_')}_{k}": v for k, v in scenes(count).items()}
    if kind == "yolo":
        write_yolo(root / "images" / folder, root / "labels" / folder, content)
        (root / "classes.txt").write_text("disc\nsquare\n")
    for stem, objects in content.items() if kind == "voc" else ():
        write_image(root / "images" / folder / f"{stem}.jpg")
        path = root / "Annotations" / folder / f"{stem}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(voc_xml(f"{stem}.jpg", objects))


@pytest.mark.parametrize(
    "path, part",
    [
        ("images/train/test_rig", "train"),
        ("val/train_a/dev_board", "val"),
        ("rig_a", None),
        ("images/test_rig", "test"),
        ("test_data/train", "train"),
        ("training_data/val_images", "val"),
        ("train_val/val", "val"),
        ("annotations_trainval2017/annotations/instances_val2017", "val"),
        ("annotations_trainval2017/annotations/instances", "train"),
    ],
)
def test_the_outermost_folder_of_nothing_but_a_part_says_which_it_is(path, part):
    assert part_of_path(Path("/data", path), Path("/data")) == part


@pytest.mark.parametrize("other", ["test_rig", "dev_board"])
@pytest.mark.parametrize("kind", ["yolo", "voc"])
def test_a_folder_in_that_of_a_part_takes_no_images_out_of_it(tmp_path, kind, other):
    for folder in ("train/rig_a", f"train/{other}", "val/rig_a"):
        write_folder(tmp_path, kind, folder)
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.val), dataset.test) == (6, 3, None)
    assert len(dataset.problems) == 0


def test_a_coco_file_in_the_folder_of_a_part_is_of_that_part(tmp_path):
    for folder in ("train/test_rig", "val/rig"):
        write_coco(tmp_path / folder / "labels.json", scenes(3), tmp_path / folder)
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.val), dataset.test) == (3, 3, None)


def test_images_of_coco_in_a_folder_below_that_of_the_part_are_no_others(tmp_path):
    content = scenes(6)
    others = {f"v{k}": v for k, v in scenes(2).items()}
    write_coco(tmp_path / "train.json", content, tmp_path / "images/train/val_rig")
    write_coco(tmp_path / "val.json", others, tmp_path / "images/val/rig")
    for stem in content:  # of the same names, which nothing says to be of training
        write_image(tmp_path / "old" / f"{stem}.png")
    dataset = read_dataset(tmp_path)
    assert {Path(r["file_name"]).parent.name for r in dataset.train} == {"val_rig"}


@pytest.mark.parametrize("kind", ["yolo", "voc"])
@pytest.mark.parametrize(
    "folders, names",
    [
        (["train/rig", "train/test", "val/rig"], "train and by test"),
        (["training/rig_train", "training/rig_val"], "training and by rig_val"),
        (["train_a/rig", "train_a/test_rig"], "train_a and by test_rig"),
    ],
)
def test_folders_that_are_named_after_two_parts_are_refused(tmp_path, kind, folders, names):
    for folder in folders:
        write_folder(tmp_path, kind, folder)
    with pytest.raises(DatasetError, match=f"named after two parts, by {names}; .* YAML file"):
        read_dataset(tmp_path)


def test_a_coco_file_whose_name_contradicts_its_folder_is_refused(tmp_path):
    write_coco(tmp_path / "train/instances_val.json", scenes(3), tmp_path / "train")
    with pytest.raises(DatasetError, match="named after two parts, by train and by instances_val"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("kind", ["yolo", "voc"])
def test_labels_of_a_folder_and_of_one_below_it_are_read_once(tmp_path, kind):
    for folder in ("train", "train/more", "val"):
        write_folder(tmp_path, kind, folder)
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.val), len(dataset.problems)) == (6, 3, 0)
