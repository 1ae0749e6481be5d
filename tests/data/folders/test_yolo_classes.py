from __future__ import annotations

import pytest

from dense_kd.data import DatasetError, read_dataset
from helpers.own_datasets import boxes_of, scenes, write_yolo

NAMES = "disc\nsquare\n"


def parts_with_lists(tmp_path, lists, below=""):
    """labels/train and labels/val; `lists` has the text of files that name classes."""
    for part in ("train", "val"):
        content = {f"{part}{k}": v for k, v in scenes(3).items()}
        folders = (tmp_path / kind / part / below for kind in ("images", "labels"))
        write_yolo(*folders, content)
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    "lists",
    [
        {"labels/train/classes.txt": NAMES, "labels/val/classes.txt": "square\ndisc\n"},
        {"classes.txt": NAMES, "labels/val/classes.txt": "square\ndisc\n"},
        {"labels/train/classes.txt": NAMES, "labels/val/names.yaml": "names: [square, disc]"},
        {"labels/classes.txt": NAMES, "data.yaml": "names: [disc, ring, square]"},
        {"a.yaml": "names: [disc, square]", "b.yaml": "names: [square, disc]"},
        {"labels/train/data.yaml": "train: x\nnames: [disc, square]",
         "labels/val/data.yaml": "train: x\nnames: [disc, ring]"},
    ],
)  # fmt: skip
def test_files_that_name_classes_in_different_orders_are_refused(tmp_path, lists):
    parts_with_lists(tmp_path, lists)
    with pytest.raises(DatasetError, match="in different ways: class [01] is .*renumber") as error:
        read_dataset(tmp_path)
    assert all(str(tmp_path / name) in str(error.value) for name in lists)


def test_a_list_of_classes_may_be_the_beginning_of_another(tmp_path):
    lists = {"labels/train/classes.txt": "disc\n", "labels/val/classes.txt": NAMES}
    dataset = read_dataset(parts_with_lists(tmp_path, {**lists, "settings.yaml": "classes: 2"}))
    assert dataset.classes == ["disc", "square"] and len(dataset.problems) == 0
    assert [label for label, _ in boxes_of(dataset.train)["train000"]] == [0, 1]


def test_classes_are_found_in_a_folder_between_the_labels_and_the_dataset(tmp_path):
    dataset = read_dataset(parts_with_lists(tmp_path, {"labels/classes.txt": NAMES}, "a/b"))
    assert dataset.classes == ["disc", "square"]


def test_files_of_different_key_points_are_refused(tmp_path):
    points = "names: [disc, square]\nkpt_shape: "
    lists = {"a.yaml": f"{points}[3, 2]", "b.yaml": f"{points}[4, 2]"}
    with pytest.raises(DatasetError, match="a.yaml and .*b.yaml have different kpt_shape"):
        read_dataset(parts_with_lists(tmp_path, lists))


def test_other_names_than_those_of_the_description_are_noted(tmp_path):
    described = "train: images/train\nval: images/val\nnames: [disc, square]"
    lists = {"data.yaml": described, "labels/val/classes.txt": "square\ndisc\n",
             "labels/train/classes.txt": NAMES, "other.yaml": "names: [ring]"}  # fmt: skip
    parts_with_lists(tmp_path, lists)
    (tmp_path / "labels/names.txt").write_bytes(b"\xff")
    reason = "names other classes than the YAML file, whose names are taken"
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ["disc", "square"]
    assert [(p.action, p.reason, p.file) for p in dataset.problems] == [
        ("noted", reason, "other.yaml"),
        ("noted", "names of classes that cannot be read", "labels/names.txt"),
        ("noted", reason, "labels/val/classes.txt"),
    ]
