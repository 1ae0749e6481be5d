from __future__ import annotations

import random
import shutil

import pytest

from dense_kd.data import DatasetError, read_dataset
from dense_kd.data.folders.split import draw_validation
from dense_kd.pipeline.options import DistillOptions
from helpers.own_datasets import scenes, voc_xml, write_image, write_voc, write_yolo


def draw(images, fraction=0.2, seed=0, groups=None):
    return draw_validation(images, groups or {name: name for name in images}, fraction, seed)


def images_of(count, classes=3):
    return {f"{i}.jpg": [i % classes] for i in range(count)}


def test_the_draw_depends_on_the_seed_and_not_on_the_order():
    images = images_of(40)
    first = draw(images)
    assert len(first) == 8
    names = list(images)
    random.Random(1).shuffle(names)
    assert draw({name: images[name] for name in names}) == first
    assert draw(images, seed=1) != first


@pytest.mark.parametrize("seed", range(20))
def test_every_class_of_two_images_or_more_is_in_both_parts_and_a_single_one_in_train(seed):
    images = {str(i): [0] for i in range(30)}
    images.update({f"rare{i}": [0, 1] for i in range(2)}, single=[0, 2], empty=[])
    drawn = draw(images, seed=seed)
    assert len(drawn) == 7
    assert len(drawn & {"rare0", "rare1"}) == 1
    assert "single" not in drawn


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_small_sets_are_split_and_both_parts_have_a_box(count, seed):
    for classes in (1, 2, count):
        images = images_of(count, classes)
        images["empty"] = []
        drawn = draw(images, seed=seed)
        assert 0 < len(drawn) < len(images)
        assert any(images[name] for name in drawn)
        assert any(images[name] for name in images.keys() - drawn)


def test_groups_stay_together():
    images = images_of(60)
    groups = {name: str(int(name[:-4]) // 3) for name in images}
    drawn = draw(images, groups=groups)
    assert len(drawn) == 12
    assert {groups[name] for name in drawn}.isdisjoint(groups[n] for n in images.keys() - drawn)


def test_one_group_cannot_be_split():
    images = images_of(3)
    assert draw(images, groups=dict.fromkeys(images, "all")) == set()


def names_of(records):
    return sorted(r["file_name"].rsplit("/", 1)[-1] for r in records)


def test_the_draw_is_that_of_distill_where_nothing_else_is_said(tmp_path):
    write_voc(tmp_path, scenes(12))
    options = DistillOptions()
    named = {name: getattr(options, name) for name in ("val_fraction", "seed", "layout")}
    assert read_dataset(tmp_path).val == read_dataset(tmp_path, **named).val


def test_the_split_does_not_depend_on_where_the_dataset_lies(tmp_path):
    write_voc(tmp_path / "a", scenes(12))
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere/b")
    first, second = read_dataset(tmp_path / "a"), read_dataset(tmp_path / "elsewhere/b")
    assert names_of(first.val) == names_of(second.val)
    assert len(first.val) == 2


@pytest.mark.parametrize("seed", range(3))
def test_copies_and_versions_of_an_image_are_drawn_together(tmp_path, seed):
    for i in range(6):
        path = write_image(tmp_path / f"JPEGImages/c{i}.jpg")
        shutil.copy(path, path.with_name(f"z{i}.jpg"))
        for version in ("a0", "b1"):
            write_image(tmp_path / f"JPEGImages/v{i}_jpg.rf.{version}.jpg")
    (tmp_path / "Annotations").mkdir()
    for path in (tmp_path / "JPEGImages").iterdir():
        text = voc_xml(path.name, [("disc", [1, 1, 9, 9])])
        (tmp_path / "Annotations" / f"{path.stem}.xml").write_text(text)
    dataset = read_dataset(tmp_path, seed=seed)
    scenes_of_val = {name.replace("z", "c")[:2] for name in names_of(dataset.val)}
    scenes_of_train = {name.replace("z", "c")[:2] for name in names_of(dataset.train)}
    assert scenes_of_val and not scenes_of_val & scenes_of_train
    assert len(dataset.problems) == 0


def test_a_set_of_copies_of_one_image_is_refused(tmp_path):
    root = write_voc(tmp_path, scenes(3))
    for name in ("001", "002"):
        shutil.copy(root / "JPEGImages/000.jpg", root / f"JPEGImages/{name}.jpg")
    with pytest.raises(DatasetError, match="no validation set can be drawn from 3 images of 1 "):
        read_dataset(root)


def two_parts(tmp_path, train, val):
    """Images of 40 x 30 pixels; those of `val` in `train` are copies of the same name."""
    for part, content in (("train", train), ("val", val)):
        write_yolo(tmp_path / "images" / part, tmp_path / "labels" / part, content)
    for stem in train.keys() & val.keys():
        images = tmp_path / "images"
        shutil.copy(images / f"train/{stem}.png", images / f"val/{stem}.png")
    (tmp_path / "classes.txt").write_text("disc\nsquare\n")
    return read_dataset(tmp_path)


def test_training_images_that_are_evaluated_on_are_left_out_and_listed(tmp_path):
    dataset = two_parts(tmp_path, scenes(5), {**scenes(2), "other": scenes(1)["000"]})
    assert dataset.problems.summary() == "dropped 2 images (in train and in val, left out of train)"
    first = next(iter(dataset.problems))
    assert (first.file, first.detail) == (
        "images/train/000.png", "the same as images/val/000.png",
    )  # fmt: skip
    assert names_of(dataset.train) == ["002.png", "003.png", "004.png"]
    assert len(dataset.val) == 3


def test_a_test_images_copy_is_left_out_of_train_and_noted_in_val(tmp_path):
    for part in ("train", "val", "test"):
        content = {f"{part}{stem}": objects for stem, objects in scenes(3).items()}
        write_yolo(tmp_path / "images" / part, tmp_path / "labels" / part, content)
    for part in ("train", "val"):
        image = tmp_path / f"images/{part}/{part}001.png"
        shutil.copy(tmp_path / "images/test/test001.png", image)
    (tmp_path / "classes.txt").write_text("disc\nsquare\n")
    dataset = read_dataset(tmp_path)
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [2, 3, 3]
    assert [p.reason for p in dataset.problems] == [
        "in train and in val, left out of train", "in val and in test",
    ]  # fmt: skip


def test_copies_within_a_part_stay(tmp_path):
    root = write_voc(tmp_path, scenes(6), {"train": [*scenes(4)], "val": ["004", "005"]})
    shutil.copy(root / "JPEGImages/000.jpg", root / "JPEGImages/001.jpg")
    dataset = read_dataset(root)
    assert (len(dataset.train), len(dataset.val), len(dataset.problems)) == (4, 2, 0)


def test_one_set_that_is_meant_to_be_both_parts_stays_and_is_noted(tmp_path):
    dataset = two_parts(tmp_path, scenes(3), {**scenes(3), "other": []})
    assert dataset.problems.summary() == (
        "noted 4 images (3 in train and in val, 1 with an empty label file)"
    )
    assert (len(dataset.train), len(dataset.val)) == (3, 4)


def test_parts_of_the_same_images_with_other_boxes_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="all 3 images of the part 'train' are in val, too, and"):
        two_parts(tmp_path, scenes(3), {stem: objects[:1] for stem, objects in scenes(3).items()})


def test_a_validation_set_without_boxes_is_refused_and_such_a_test_set_left_out(tmp_path):
    objects = {**scenes(3), "a": [], "b": []}
    root = write_voc(tmp_path, objects, {"train": scenes(3), "val": ["a"], "test": ["b"]})
    with pytest.raises(DatasetError, match="1 images of the part 'val' have no box to evaluate"):
        read_dataset(root)
    (root / "ImageSets/Main/val.txt").write_text("002\n")
    (root / "ImageSets/Main/train.txt").write_text("000\n001\n")
    dataset = read_dataset(root)
    assert dataset.test is None
    assert "without any box, so there is no test set" in dataset.problems.summary()
