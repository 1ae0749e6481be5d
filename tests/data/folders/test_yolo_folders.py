from __future__ import annotations

import shutil

import numpy as np
import pytest

from dense_kd.data import DatasetError, read_dataset
from helpers.own_datasets import boxes_of, scenes, write_image, write_yolo

NAMES = "disc\nsquare\n"
EXPECTED = [(0, [2, 3, 14, 17]), (1, [18, 4, 30, 25])]


def rounded(boxes):
    return [(label, [round(value) for value in box]) for label, box in boxes]


def flat(tmp_path, count=6, names=NAMES):
    write_yolo(tmp_path / "images", tmp_path / "labels", scenes(count))
    (tmp_path / "classes.txt").write_text(names)
    return tmp_path


def reasons(dataset):
    return [(p.action, p.what, p.reason) for p in dataset.problems]


@pytest.mark.parametrize(
    "images, labels",
    [("images/{}", "labels/{}"), ("{}/images", "{}/labels"), ("{}", "{}"),
     ("images/{}2017", "labels/{}2017")],
)  # fmt: skip
@pytest.mark.parametrize("val", ["val", "valid"])
def test_common_layouts_with_parts_are_recognised(tmp_path, images, labels, val):
    for part, count in (("train", 4), (val, 2)):
        content = {f"{part}{k}": v for k, v in scenes(count).items()}
        write_yolo(tmp_path / images.format(part), tmp_path / labels.format(part), content)
    (tmp_path / "classes.txt").write_text(NAMES)
    dataset = read_dataset(tmp_path)
    assert (dataset.layout, dataset.classes) == ("yolo", ["disc", "square"])
    assert (len(dataset.train), len(dataset.val)) == (4, 2)
    assert rounded(boxes_of(dataset.train)["train000"]) == EXPECTED
    assert len(dataset.problems) == 0


def test_a_part_whose_images_are_all_empty_is_a_part(tmp_path):
    for part in ("train", "val"):
        write_yolo(tmp_path / "images" / part, tmp_path / "labels" / part, scenes(3))
        (tmp_path / "classes.txt").write_text(NAMES)
    write_image(tmp_path / "images/test/a.png")
    write_image(tmp_path / "runs/train/batch.png")  # what a training wrote
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.val), dataset.test) == (3, 3, None)
    assert ("noted", "part", "without any box, so there is no test set") in reasons(dataset)
    for path in (tmp_path / "labels/val").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="3 images of the part 'val' have no box to evaluate"):
        read_dataset(tmp_path)


def test_notes_of_label_studio_are_no_coco_annotations(tmp_path):
    flat(tmp_path)
    (tmp_path / "notes.json").write_text('{"categories": [{"id": 0, "name": "disc"}], "info": {}}')
    assert read_dataset(tmp_path).layout == "yolo"


@pytest.mark.parametrize("place", ["classes.txt", "labels/classes.txt", "obj.names"])
def test_a_flat_folder_is_split_and_classes_come_from_a_file(tmp_path, place):
    flat(tmp_path)
    (tmp_path / "classes.txt").rename(tmp_path / place)
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.val), dataset.classes) == (5, 1, ["disc", "square"])
    assert len(dataset.problems) == 0


def test_images_and_labels_in_one_folder_are_recognised(tmp_path):
    write_yolo(tmp_path, tmp_path, scenes(4))
    (tmp_path / "classes.txt").write_text(NAMES)
    (tmp_path / "README.txt").write_text("Cells.")
    dataset = read_dataset(tmp_path)
    assert len(dataset.train) + len(dataset.val) == 4 and len(dataset.problems) == 0


def test_labels_without_names_of_classes_are_refused(tmp_path):
    flat(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DatasetError, match="nothing that names the classes: .* write classes.txt"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("place", [".", "labels"])
def test_classes_are_also_found_in_a_yaml_file_that_names_no_images(tmp_path, place):
    flat(tmp_path)
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "settings.yaml").write_text("epochs: 3\n")
    (tmp_path / place / "data.yaml").write_text("nc: 2\nnames: {1: square, 0: disc}\n")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ["disc", "square"]
    (tmp_path / place / "data.yaml").write_text("nc: 3\nnames: [disc, square]\n")
    with pytest.raises(DatasetError, match="nc=3, but names has 2 names"):
        read_dataset(tmp_path)


def test_images_without_labels_are_empty_and_noted(tmp_path):
    flat(tmp_path)
    (tmp_path / "labels/000.txt").unlink()
    (tmp_path / "labels/001.txt").write_text("\n")
    (tmp_path / "labels/002.txt").unlink()
    dataset = read_dataset(tmp_path)
    found = boxes_of(dataset.train + dataset.val)
    assert found["000"] == found["001"] == found["002"] == [] and len(found) == 6
    assert dataset.problems.summary() == (
        "noted 3 images (2 without a label file and taken as empty, 1 with an empty label file)"
    )
    assert [p.file for p in dataset.problems] == [f"images/00{i}.png" for i in range(3)]


@pytest.mark.parametrize("described", [False, True])
def test_labels_are_found_however_accents_and_the_suffix_are_written(tmp_path, described):
    flat(tmp_path)
    names = {"000": ("Zelle\u0301", "Zell\u00e9.txt"), "001": ("Zell\u00e8", "Zelle\u0300.TXT"),
             "002": ("c", "c.TXT"), "003": ("d", "d.Txt")}  # fmt: skip
    for old, (image, label) in names.items():
        (tmp_path / f"images/{old}.png").rename(tmp_path / f"images/{image}.png")
        (tmp_path / f"labels/{old}.txt").rename(tmp_path / "labels" / label)
    if described:
        text = "train: {images: images, annotations: labels}\nclasses: [disc, square]\n"
        (tmp_path / "data.yaml").write_text(text)
    dataset = read_dataset(tmp_path)
    assert all(len(boxes) == 2 for boxes in boxes_of(dataset.train + dataset.val).values())
    assert len(dataset.problems) == 0


@pytest.mark.parametrize("described", [False, True])
def test_decimal_commas_are_refused_with_the_reason(tmp_path, described):
    flat(tmp_path)
    if described:
        (tmp_path / "data.yaml").write_text("train: images\nnames: [disc, square]")
    for path in (tmp_path / "labels").iterdir():
        path.write_text(path.read_text().replace(".", ","))
    message = r"12 boxes .with decimal commas, where points are expected., 6 images .of whose boxes"
    with pytest.raises(DatasetError, match=message):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "text, count", [("0 0,5 0,5 0,2 0,2\n", 1), ("0 20 15 10 10\nx\n", 2), ("0 .5 .5 0 0\n", 1)]
)
def test_an_image_of_whose_boxes_none_can_be_used_is_not_taken_for_empty(tmp_path, text, count):
    flat(tmp_path)
    (tmp_path / "labels/000.txt").write_text(text)
    dataset = read_dataset(tmp_path)
    assert sorted(boxes_of(dataset.train + dataset.val)) == ["001", "002", "003", "004", "005"]
    assert str([*dataset.problems][-1]) == (
        "dropped image: images/000.png: of whose boxes none can be used "
        f"({count} in labels/000.txt)"
    )


def test_polygons_scores_windows_lines_and_classes_written_as_floats_are_read(tmp_path):
    flat(tmp_path)
    polygon = "1 0.25 0.2 0.5 0.2 0.5 0.8 0.25 0.8"
    lines = f"\ufeff0 0.5 0.5 0.25 0.5 0.93\r\n{polygon}\r\n1.0 0.25\t0.5  0.1 0.2\r\n\r\n"
    (tmp_path / "labels/000.txt").write_bytes(lines.encode())
    dataset = read_dataset(tmp_path)
    assert boxes_of(dataset.train + dataset.val)["000"] == [
        (0, [15, 7.5, 25, 22.5]), (1, [10, 6, 20, 24]), (1, [8, 12, 12, 18]),
    ]  # fmt: skip
    assert len(dataset.problems) == 0


def test_broken_lines_are_dropped_and_listed(tmp_path):
    flat(tmp_path)
    lines = ["0 0.5 0.5 0.2", "a 0.5 0.5 0.2 0.2", "0 0.5 nan 0.2 0.2", "0.5 0.5 0.5 0.2 0.2",
             "0 0.5 0.5 0 0.2", "0 0.5 0.5 -0.1 0.2", "0 20 15 10 10", "0 0.95 0.5 0.3 0.2",
             "0 0.5 0.5 0.2 0.2", "0 0.5 0.5 0.2 0.2", ",", "0 1 2 3 4 5 6 7",
             "0 1.5 0.5 0.2 0.2"]  # fmt: skip
    (tmp_path / "labels/000.txt").write_text("\n".join(lines))
    dataset = read_dataset(tmp_path)
    assert {(p.item, p.action, p.reason) for p in dataset.problems} == {
        *(
            (f"line {i}", "dropped", "not a class and a box in numbers")
            for i in (1, 2, 3, 4, 11, 12)
        ),
        *((f"line {i}", "dropped", "without area") for i in (5, 6)),
        ("line 7", "dropped", "not in parts of the image (from 0 to 1)"),
        ("line 8", "repaired", "clipped to the image"),
        ("line 10", "dropped", "twice the same"),
        ("line 13", "dropped", "outside the image"),
    }
    assert len(boxes_of(dataset.train + dataset.val)["000"]) == 2


def test_labels_in_pixels_are_refused_with_the_reason(tmp_path):
    flat(tmp_path)
    for path in (tmp_path / "labels").iterdir():
        path.write_text("0 20 15 10 10\n")
    with pytest.raises(DatasetError, match="6 boxes .not in parts of the image .from 0 to 1"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("score", ["", " 0.9"])
def test_labels_that_are_corners_are_refused(tmp_path, score):
    flat(tmp_path)
    for path in (tmp_path / "labels").iterdir():
        path.write_text(f"0 0.05 0.1 0.35 0.57{score}\n1 0.45 0.13 0.75 0.83{score}\n")
    with pytest.raises(DatasetError, match="part 'train' seem to be the corners .* Convert them"):
        read_dataset(tmp_path)


def test_large_boxes_that_stick_out_are_not_taken_for_corners(tmp_path):
    flat(tmp_path)
    for path in (tmp_path / "labels").iterdir():
        path.write_text("0 0.5 0.5 0.9 0.9\n1 0.8 0.5 0.5 0.9\n")
    assert "clipped" in read_dataset(tmp_path).problems.summary()


def test_a_class_without_a_name_is_refused(tmp_path):
    flat(tmp_path, names="disc\n")
    with pytest.raises(DatasetError, match=r"000.txt, line 2: class 1, but .*classes.txt names 1 "):
        read_dataset(tmp_path)


def test_unreadable_labels_drop_their_image_and_labels_without_one_are_listed(tmp_path):
    flat(tmp_path)
    (tmp_path / "labels/000.txt").write_bytes(b"\xff\xfe0 0")
    (tmp_path / "labels/001.txt").unlink()
    (tmp_path / "labels/001.txt").mkdir()
    (tmp_path / "labels/other.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    dataset = read_dataset(tmp_path)
    assert sorted(boxes_of(dataset.train + dataset.val)) == ["002", "003", "004", "005"]
    assert reasons(dataset) == [
        ("dropped", "image", "with unreadable labels"),
        ("dropped", "image", "with unreadable labels"),
        ("dropped", "file", "labels without an image"),
    ]


def test_linked_folders_are_followed_once_and_hidden_files_are_not_seen(tmp_path):
    flat(tmp_path / "real")
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(tmp_path / "real/images")
    (data / "labels").symlink_to(tmp_path / "real/labels")
    (tmp_path / "real/images/loop").symlink_to(tmp_path / "real/images")
    (data / "classes.txt").symlink_to(tmp_path / "real/classes.txt")
    shutil.copy(tmp_path / "real/images/000.png", tmp_path / "real/images/._000.png")
    (tmp_path / "real/images/folder.jpg").mkdir()
    dataset = read_dataset(data)
    assert len(dataset.train) + len(dataset.val) == 6 and len(dataset.problems) == 0


def test_images_without_any_label_are_not_recognised(tmp_path):
    for name in "abc":
        write_image(tmp_path / f"images/{name}.png")
        (tmp_path / f"images/{name}.txt").write_text("a photograph of a cell and its wall")
    with pytest.raises(DatasetError, match=r"not recognised .* found images/ \(3 .png, 3 .txt\)"):
        read_dataset(tmp_path)


def with_points(tmp_path, number, size, *, described, edit=lambda values: values):
    """Boxes with key points from their upper left corner on; the last one is not seen."""
    for part in ("train", "val"):
        content = {f"{part}{stem}": objects for stem, objects in scenes(6).items()}
        write_yolo(tmp_path / "images" / part, tmp_path / "labels" / part, content)
        for path in (tmp_path / "labels" / part).iterdir():
            lines = []
            for line in path.read_text().splitlines():
                x, y, width, height = map(float, line.split()[1:])
                values = [x, y, width, height]
                for i in range(number - 1):
                    share = i / max(number - 2, 1) - 0.5
                    values += [x + share * width, y + share * height, 2][:size]
                values += [0, 0, 0][:size]
                lines.append(f"{line[0]} {' '.join(map(str, edit(values)))}\n")
            path.write_text("".join(lines))
    shape = f"kpt_shape: [{number}, {size}]\n" if described else ""
    described = f"train: images/train\nval: images/val\n{shape}names: [disc, square]\n"
    (tmp_path / "data.yaml").write_text(described)


@pytest.mark.parametrize("number, size", [(12, 2), (24, 3), (17, 3), (1, 2), (2, 3)])
@pytest.mark.parametrize("score", [[], [0.9]])
def test_a_line_with_key_points_is_a_box(tmp_path, number, size, score):
    with_points(tmp_path, number, size, described=True, edit=lambda values: values + score)
    dataset = read_dataset(tmp_path)
    assert rounded(boxes_of(dataset.train)["train000"]) == EXPECTED
    assert len(dataset.problems) == 0


@pytest.mark.parametrize("number, size", [(12, 2), (24, 3), (17, 3), (3, 2)])
def test_key_points_are_not_taken_for_polygons_where_nothing_says_what_they_are(
    tmp_path, number, size
):
    with_points(tmp_path, number, size, described=False)
    with pytest.raises(DatasetError, match=rf"all 24 lines .* kpt_shape: .{number}, {size}.$"):
        read_dataset(tmp_path)


def test_lines_of_another_number_of_key_points_are_dropped_and_listed(tmp_path):
    with_points(tmp_path, 5, 2, described=True)
    path = tmp_path / "labels/train/train000.txt"
    path.write_text(path.read_text() + "1 0.25 0.2 0.5 0.2 0.5 0.8 0.25 0.8\n")
    dataset = read_dataset(tmp_path)
    assert reasons(dataset) == [
        ("dropped", "box", "not a class, a box and 5 key points in numbers")
    ]  # fmt: skip


@pytest.mark.parametrize("side", [0.02, 0.1, 0.4])
@pytest.mark.parametrize("corners", [4, 8])
def test_polygons_of_one_number_of_points_are_polygons(tmp_path, side, corners):
    flat(tmp_path, 30)
    rng = np.random.default_rng(0)
    boxes = {}
    for path in sorted((tmp_path / "labels").iterdir()):
        x, y = rng.uniform(0, 1 - side, 2)
        angles = 2 * np.pi * (np.arange(corners) / corners + rng.uniform())
        points = side / 2 * (1 + np.stack([np.cos(angles), np.sin(angles)], axis=1)) + [x, y]
        path.write_text(f"0 {' '.join(map(str, points.ravel()))}\n")
        boxes[path.stem] = [*points.min(0) * [40, 30], *points.max(0) * [40, 30]]
    dataset = read_dataset(tmp_path)
    assert len(dataset.problems) == 0
    for stem, ((_, box),) in boxes_of(dataset.train + dataset.val).items():
        assert box == pytest.approx(boxes[stem], abs=0.01)


def test_a_box_may_have_a_score_and_the_number_of_a_track(tmp_path):
    flat(tmp_path)
    (tmp_path / "labels/000.txt").write_text("0 0.5 0.5 0.25 0.5 0.93 7\n")
    dataset = read_dataset(tmp_path)
    assert boxes_of(dataset.train + dataset.val)["000"] == [(0, [15, 7.5, 25, 22.5])]
    assert len(dataset.problems) == 0


@pytest.mark.parametrize("given", ["17", "[17]", "[17, 4]", "[0, 3]", "[a, 3]", "{a: 1}"])
def test_a_shape_of_key_points_that_cannot_be_is_refused(tmp_path, given):
    flat(tmp_path)
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: [disc, square]\nkpt_shape: {given}")
    with pytest.raises(DatasetError, match=r"kpt_shape=.*: expected the number of key points and"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "train, val",
    [("cam1/{}.png", "cam2/{}.jpg"), ("images/cam1/{}.png", "./images/cam2/{}"),
     ("/home/someone/images/cam1/{}.png", "C:\\\\images\\cam2\\{}.jpg")],
)  # fmt: skip
def test_a_list_names_images_by_their_paths(tmp_path, train, val):
    for folder, suffix in (("cam1", ".png"), ("cam2", ".jpg")):
        images, labels = tmp_path / "images" / folder, tmp_path / "labels" / folder
        write_yolo(images, labels, scenes(4), suffix=suffix)
    for part, entry in (("train", train), ("val", val)):
        lines = [entry.format(stem) for stem in scenes(4)]
        (tmp_path / f"{part}.txt").write_text("\n".join(lines))
    lists = [f"{part}: {{images: images, list: {part}.txt}}\n" for part in ("train", "val")]
    (tmp_path / "data.yaml").write_text(f"{''.join(lists)}layout: yolo\nclasses: [disc, square]\n")
    dataset = read_dataset(tmp_path / "data.yaml")
    found = [{r["file_name"].split("/")[-2] for r in p} for p in (dataset.train, dataset.val)]
    assert found == [{"cam1"}, {"cam2"}]
    assert (len(dataset.train), len(dataset.val), len(dataset.problems)) == (4, 4, 0)


def test_a_bare_name_in_a_list_is_that_of_any_folder_and_one_in_vain_is_recorded(tmp_path):
    for folder in ("cam1", "cam2"):
        write_yolo(tmp_path / "images" / folder, tmp_path / "labels" / folder, scenes(4))
    (tmp_path / "train.txt").write_text("000\n001.png\ncam3/002.png\n")
    (tmp_path / "data.yaml").write_text(
        "train: {images: images, list: train.txt}\nlayout: yolo\nclasses: [disc, square]\n"
    )
    dataset = read_dataset(tmp_path / "data.yaml")
    assert len(dataset.train + dataset.val) == 4
    assert [(p.file, p.item, p.reason) for p in dataset.problems] == [
        ("train.txt", "line 3", "listed, but no such image")
    ]
