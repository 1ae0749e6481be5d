from __future__ import annotations

import json

import pytest

from dense_kd.data import DatasetError, read_dataset
from helpers.own_datasets import boxes_of, scenes, write_coco, write_image

EXPECTED_OBJECTS = [("disc", [2, 3, 14, 17]), ("square", [18, 4, 30, 25])]
EXPECTED = [(0, [2, 3, 14, 17]), (1, [18, 4, 30, 25])]


def read(tmp_path, count=5, edit=None, **options):
    write_coco(
        tmp_path / "data" / "labels.json", scenes(count), tmp_path / "data/images", edit=edit
    )
    return read_dataset(tmp_path / "data", **options)


def reasons(dataset):
    return {(p.action, p.what, p.reason) for p in dataset.problems}


@pytest.mark.parametrize(
    "train, val, folders",
    [
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json",
         ("train2017", "val2017")),
        ("annotations/instances_train.json", "annotations/instances_val.json",
         ("images/train", "images/val")),
        ("train/_annotations.coco.json", "valid/_annotations.coco.json", ("train", "valid")),
        ("train.json", "val.json", ("images", "images")),
        ("train/labels.json", "validation/labels.json", ("train/data", "validation/data")),
    ],
)  # fmt: skip
def test_common_layouts_of_two_files_are_recognised(tmp_path, train, val, folders):
    shared = folders[0] == folders[1]
    others = {f"v{k}" if shared else k: v for k, v in scenes(2).items()}
    write_coco(tmp_path / train, scenes(4), tmp_path / folders[0])
    write_coco(tmp_path / val, others, tmp_path / folders[1])
    dataset = read_dataset(tmp_path)
    assert (dataset.layout, dataset.classes) == ("coco", ["disc", "square"])
    assert (len(dataset.train), len(dataset.val), dataset.test) == (4, 2, None)
    assert boxes_of(dataset.train)["000"] == EXPECTED
    assert {r["file_name"] for r in dataset.val} == {
        str(tmp_path / folders[1] / f"{stem}.png") for stem in others
    }
    assert len(dataset.problems) == 0
    assert dataset.split == "train and val are those of the dataset (coco)"


def test_captions_and_key_points_beside_the_instances_are_not_taken(tmp_path):
    for part in ("train", "val"):
        write_coco(tmp_path / f"annotations/instances_{part}.json", scenes(3), tmp_path / part)
        for other in ("captions", "person_keypoints"):
            write_coco(tmp_path / f"annotations/{other}_{part}.json", scenes(1), tmp_path / part)
    assert len(read_dataset(tmp_path).train) == 3


def test_one_file_is_split_and_may_be_given_itself(tmp_path):
    dataset = read(tmp_path, 10, val_fraction=0.3)
    assert (len(dataset.train), len(dataset.val)) == (7, 3)
    assert "3 of its 10 images were drawn for val (val_fraction=0.3, seed=1)" in dataset.split
    again = read_dataset(tmp_path / "data/labels.json", val_fraction=0.3)
    assert (again.train, again.val) == (dataset.train, dataset.val)


def test_classes_are_in_the_order_of_category_ids_with_holes(tmp_path):
    def edit(content):
        content["categories"] = [
            {"id": 90, "name": "disc"}, {"id": 7, "name": "square"}, {"id": 3, "name": "unused"},
        ]  # fmt: skip
        for annotation in content["annotations"]:
            annotation["category_id"] = {1: 90, 2: 7}[annotation["category_id"]]

    dataset = read(tmp_path, edit=edit)
    assert dataset.classes == ["unused", "square", "disc"]
    assert len(dataset.problems) == 0
    assert {c for boxes in boxes_of(dataset.train).values() for c, _ in boxes} == {1, 2}


def test_ids_of_images_stay_where_they_are_whole_numbers(tmp_path):
    def edit(content, ids=(900, "17", 3.0, 40, 5)):
        new = dict(enumerate(ids, start=1))
        for image in content["images"]:
            image["id"] = new[image["id"]]
        for annotation in content["annotations"]:
            annotation["image_id"] = new[annotation["image_id"]]

    dataset = read(tmp_path, edit=edit)
    assert sorted(r["image_id"] for r in dataset.train + dataset.val) == [3, 5, 17, 40, 900]
    assert len(boxes_of(dataset.train)["000"]) == 2

    dataset = read(tmp_path, edit=lambda content: edit(content, ("a", "b", "c", "d", "e")))
    assert sorted(r["image_id"] for r in dataset.train + dataset.val) == [1, 2, 3, 4, 5]
    assert all(len(boxes) == 2 for boxes in boxes_of(dataset.train + dataset.val).values())


@pytest.mark.parametrize("digits", [17, 25])
def test_ids_that_are_long_texts_are_told_apart(tmp_path, digits):
    def edit(content):
        for key, entries in (("id", content["images"]), ("image_id", content["annotations"])):
            for entry in entries:
                entry[key] = f"2023{entry[key]:0{digits - 4}d}"

    dataset = read(tmp_path, edit=edit)
    assert len(dataset.problems) == 0 and len(dataset.train + dataset.val) == 5
    assert all(len(boxes) == 2 for boxes in boxes_of(dataset.train).values())
    expected = {i + (2023 * 10**13 if digits == 17 else 0) for i in range(1, 6)}
    assert {r["image_id"] for r in dataset.train + dataset.val} == expected


def test_ids_below_zero_are_given_anew_for_the_evaluation_takes_none(tmp_path):
    def edit(content):
        for key, entries in (("id", content["images"]), ("image_id", content["annotations"])):
            for entry in entries:
                entry[key] = 2 - entry[key]

    dataset = read(tmp_path, edit=edit)
    assert sorted(r["image_id"] for r in dataset.train + dataset.val) == [1, 2, 3, 4, 5]
    assert all(len(boxes) == 2 for boxes in boxes_of(dataset.train + dataset.val).values())


def test_legal_oddities_are_no_problems(tmp_path):
    def edit(content):
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][1]["ignore"] = 1
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 2]
        for annotation in content["annotations"]:
            annotation["id"] = 1  # all the same
            del annotation["area"]
        content["images"][2].pop("width")

    dataset = read(tmp_path, edit=edit)
    assert dataset.problems.summary() == "no problems found"
    records = {r["image_id"]: r for r in dataset.train + dataset.val}
    assert [a["iscrowd"] for a in records[1]["annotations"]] == [1, 1]
    assert records[2]["annotations"] == []
    assert records[3]["annotations"][0]["area"] == 12 * 14


def test_broken_entries_are_dropped_and_listed(tmp_path):
    def edit(content):
        boxes = content["annotations"]
        boxes[0]["bbox"] = [1, 2, "a", 4]
        boxes[1]["bbox"] = [1, 2, float("nan"), 4]
        boxes[2]["bbox"] = [1, 2, -3, 4]
        boxes[3]["bbox"] = [1, 2, 0, 4]
        boxes[4]["bbox"] = [35, 20, 10, 4]
        boxes[5]["bbox"] = [50, 20, 10, 4]
        boxes[6]["image_id"] = 77
        boxes[7] = "nothing"
        boxes.append(dict(boxes[8]))
        boxes[9].pop("bbox")
        boxes[9]["segmentation"] = [[3, 4, 20, 4, 20, 9, 3, 9]]
        content["images"] += [{"id": 8}, {"file_name": "x.png"}, 5]
        content["images"].append({"id": 10, "file_name": "gone.png", "width": 4, "height": 4})

    dataset = read(tmp_path, 8, edit)
    counted = {}
    for problem in dataset.problems:
        key = f"{problem.action} {problem.what} {problem.reason}"
        counted[key] = counted.get(key, 0) + 1
    assert counted == {
        "dropped box without a bbox of four finite numbers": 2,
        "dropped box without area": 2,
        "repaired box clipped to the image": 1,
        "dropped box outside the image": 1,
        "dropped box of no image in the file": 1,
        "dropped box not an object with bbox": 1,
        "dropped box twice the same": 1,
        "repaired box bbox taken from its segmentation": 1,
        "dropped image without file_name": 1,
        "dropped image without id": 1,
        "dropped image not an object with id and file_name": 1,
        "dropped image listed, but missing": 1,
        "dropped image of whose boxes none can be used": 2,
    }
    found = boxes_of(dataset.train + dataset.val)
    assert found["002"] == [(0, [35, 20, 40, 24])]
    assert found["004"] == [(0, [6, 3, 18, 17]), (1, [3, 4, 20, 9])]
    assert "labels.json, annotation 3: without area" in "\n".join(map(str, dataset.problems))


def test_images_that_share_an_id_are_dropped_and_files_listed_twice_are_joined(tmp_path):
    def edit(content):
        content["images"][1]["id"] = 1  # as the first, of another file
        content["images"].append({**content["images"][2], "id": 9})
        content["annotations"][-1].update(image_id=9, bbox=[1, 1, 5, 5])

    dataset = read(tmp_path, edit=edit)
    found = boxes_of(dataset.train + dataset.val)
    assert sorted(found) == ["002", "003", "004"]
    assert len(found["002"]) == 3 and len(found["004"]) == 1
    assert ("dropped", "image", "with an id that several images have") in reasons(dataset)
    assert ("repaired", "image", "listed twice, boxes joined") in reasons(dataset)


def test_file_names_with_spaces_unicode_other_folders_and_backslashes_are_found(tmp_path):
    names = ["a b.png", "Zellé 細胞.png", "c.PNG", "d.png", "e.png", "f.png"]
    for name in names:
        write_image(tmp_path / "pictures/deep" / name)
    written = [names[0], "Zelle\u0301 細胞.png", "deep/c.PNG", "deep\\d.png",
               "/home/someone/pictures/e.png", "http://host/f.png"]  # fmt: skip
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(written)],
        "annotations": [
            {"image_id": i, "category_id": 0, "bbox": [1, 1, 9, 9]} for i in range(len(names))
        ],
        "categories": [{"id": 0, "name": "cell"}],
    }
    (tmp_path / "labels.json").write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    dataset = read_dataset(tmp_path)
    assert {p.detail for p in dataset.problems} == {  # the others are where their name says
        f"named {written[i]}" for i in (0, 1, 4, 5)
    }
    assert dataset.problems.summary() == "repaired 4 images (found in another folder)"
    found = {r["file_name"].rsplit("/", 1)[-1] for r in dataset.train + dataset.val}
    assert found == set(names)


@pytest.mark.parametrize(
    "named, missing, other",
    [
        ("cam1/{}", "images/cam1/003.png", "images/cam2/003.png"),
        ("./cam1/{}", "images/cam1/003.png", "images/cam2/003.png"),
        ("/home/someone/cam1/{}", "images/cam1/003.png", "images/cam2/003.png"),
        ("{}", "train/003.png", "val/003.png"),
        ("train/{}", "train/003.png", "val/003.png"),
    ],
)
def test_a_missing_image_is_not_replaced_by_another_of_its_name(tmp_path, named, missing, other):
    def edit(content):
        for image in content["images"]:
            image["file_name"] = named.format(image["file_name"])

    (tmp_path / missing).parent.mkdir(parents=True)
    write_coco(tmp_path / "train.json", scenes(6), (tmp_path / missing).parent, edit=edit)
    write_coco(tmp_path / "val.json", {"v": EXPECTED_OBJECTS}, (tmp_path / other).parent)
    write_image(tmp_path / other)
    (tmp_path / missing).unlink()
    dataset = read_dataset(tmp_path)
    assert sorted(boxes_of(dataset.train)) == ["000", "001", "002", "004", "005"]
    assert ("dropped", "image", "listed, but missing") in reasons(dataset)
    assert not [p for p in dataset.problems if "003" in p.file and p.action != "dropped"]


def test_images_of_another_part_are_not_taken_because_more_of_the_names_are_there(tmp_path):
    write_coco(tmp_path / "train.json", scenes(6), tmp_path / "train")
    write_coco(tmp_path / "val.json", scenes(6), tmp_path / "val")
    for stem in ("001", "003", "005"):
        (tmp_path / f"train/{stem}.png").unlink()
    dataset = read_dataset(tmp_path)
    assert {r["file_name"] for r in dataset.train} == {
        str(tmp_path / f"train/{stem}.png") for stem in ("000", "002", "004")
    }
    assert len(dataset.val) == 6
    (tmp_path / "val.json").unlink()
    write_coco(
        tmp_path / "val.json", {k: EXPECTED_OBJECTS[:1] for k in scenes(6)}, tmp_path / "val"
    )
    for path in (tmp_path / "train").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="all 6 images of the part 'train' are in val, too, and"):
        read_dataset(tmp_path)


def test_images_of_a_set_that_was_taken_out_of_another_are_found_in_its_folder(tmp_path):
    content = scenes(8)
    write_coco(tmp_path / "train.json", dict([*content.items()][:5]), tmp_path / "train")
    write_coco(tmp_path / "val.json", dict([*content.items()][5:]), tmp_path / "train")
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.val), len(dataset.problems)) == (5, 3, 0)


def test_a_list_names_images_by_their_paths_and_what_it_names_in_vain_is_recorded(tmp_path):
    def edit(content):
        for index, image in enumerate(content["images"]):
            image["file_name"] = f"cam{1 + index % 2}/{image['file_name']}"
            write_image(tmp_path / "images" / image["file_name"])

    write_coco(tmp_path / "all.json", scenes(6), tmp_path / "unused", edit=edit)
    (tmp_path / "train.txt").write_text("images/cam1/000.png\ncam2/001.png\n002\ncam2/004.png\n")
    (tmp_path / "val.txt").write_text("cam2/003\n005.png\n")
    lists = {p: f"{p}: {{annotations: all.json, list: {p}.txt}}\n" for p in ("train", "val")}
    (tmp_path / "data.yaml").write_text("".join(lists.values()))
    dataset = read_dataset(tmp_path / "data.yaml")
    assert sorted(boxes_of(dataset.train)) == ["000", "001", "002"]
    assert sorted(boxes_of(dataset.val)) == ["003", "005"]
    (problem,) = dataset.problems
    assert (problem.action, problem.reason) == ("dropped", "listed, but no such image")
    assert (problem.file, problem.item, problem.detail) == ("train.txt", "line 4", "cam2/004.png")


def test_a_folder_of_masks_with_the_same_names_is_not_taken_for_the_images(tmp_path):
    write_coco(tmp_path / "labels.json", scenes(4), tmp_path / "images")
    for stem in scenes(4):
        write_image(tmp_path / "masks" / f"{stem}.png")
    assert all("/images/" in r["file_name"] for r in read_dataset(tmp_path).train)

    write_coco(tmp_path / "labels.json", scenes(4), tmp_path / "faces")
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="several folders under the same names, .*faces and"):
        read_dataset(tmp_path)


def test_the_heading_of_roboflows_categories_is_no_class(tmp_path):
    def edit(content):
        for category in content["categories"]:
            category["supercategory"] = "cells"
        content["categories"].insert(0, {"id": 0, "name": "cells", "supercategory": "none"})

    dataset = read(tmp_path, edit=edit)
    assert dataset.classes == ["disc", "square"]
    assert reasons(dataset) == {("noted", "class", "no class: the heading of all others")}

    def with_box(content):
        edit(content)
        content["annotations"][0]["category_id"] = 0

    assert read(tmp_path, edit=with_box).classes == ["cells", "disc", "square"]


def test_files_with_other_ids_are_matched_by_the_names_of_classes(tmp_path):
    write_coco(tmp_path / "train.json", scenes(4), tmp_path / "train")
    others = {"v0": [("square", [1, 1, 9, 9])], "v1": [("ring", [2, 2, 9, 9])]}
    write_coco(tmp_path / "val.json", others, tmp_path / "val", names=("square", "ring"))
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ["disc", "square", "ring"]
    assert boxes_of(dataset.val) == {"v0": [(1, [1, 1, 9, 9])], "v1": [(2, [2, 2, 9, 9])]}
    assert reasons(dataset) == {
        ("noted", "file", "category ids differ, matched by name"),
        ("noted", "class", "without a box to learn from, though its AP counts"),
    }


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda c: c.pop("categories"), "expected a list 'categories' .* got only .'images'"),
        (lambda c: c.update(images="all"), "expected a list 'images' .* got 'all'"),
        (lambda c: c.update(categories=[]), "has no categories"),
        (lambda c: c["categories"][0].pop("name"), r"categories\[0\]=.*expected a whole number"),
        (lambda c: c["categories"][0].update(name=" "), "name is empty"),
        (lambda c: c["categories"][1].update(id=1), "'disc' has this id, too"),
        (lambda c: c["categories"][1].update(name="disc"), r"categories \[1, 2\] are all called"),
        (lambda c: c["annotations"][0].update(category_id=5), r"lacks: 5 \(1 boxes\).* 1 'disc'"),
        (lambda c: c["annotations"].clear(), "part 'train' have no box to learn from"),
        (lambda c: c["images"].clear(), "no image of the part 'train' can be used, none is named"),
        (lambda c: [a.update(bbox=[0, 0, 0, 0]) for a in c["annotations"]],
         "'train' can be used, .*dropped 10 boxes .without area., 5 images .of whose boxes none"),
        (lambda c: [a.update(iscrowd=1) for a in c["annotations"]], "no box to learn from"),
        (lambda c: [i.update(file_name="x" + i["file_name"]) for i in c["images"]],
         "looked for .*x000.png.*dropped 5 images .listed, but missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_refused(tmp_path, edit, message):
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, edit=edit)


@pytest.mark.parametrize(
    "convert, message",
    [
        (lambda x, y, w, h: [x, y, x + w, y + h], "seem to be the corners x1, y1, x2, y2"),
        (lambda x, y, w, h: [x / 40, y / 30, w / 40, h / 30], "seem to be in parts of the image"),
    ],
)
def test_boxes_that_are_written_in_another_way_are_refused(tmp_path, convert, message):
    def edit(content):
        for annotation in content["annotations"]:
            annotation["bbox"] = convert(*annotation["bbox"])

    with pytest.raises(DatasetError, match=message):
        read(tmp_path, edit=edit)


def test_a_test_file_without_annotations_is_no_test_set(tmp_path):
    write_coco(tmp_path / "train.json", scenes(4), tmp_path / "images")
    write_coco(tmp_path / "test.json", scenes(2), tmp_path / "images",
               edit=lambda content: content.pop("annotations"))  # fmt: skip
    dataset = read_dataset(tmp_path)
    assert dataset.test is None and len(dataset.train) + len(dataset.val) == 4
    assert ("noted", "part", "without any box, so there is no test set") in reasons(dataset)


def test_a_file_that_is_cut_off_is_refused_with_its_name(tmp_path):
    path = write_coco(tmp_path / "labels.json", scenes(2), tmp_path)
    path.write_text(path.read_text()[:-50])
    with pytest.raises(DatasetError, match="labels.json is no valid JSON .*is the file cut off"):
        read_dataset(tmp_path)


def test_detections_are_not_taken_for_annotations(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]')
    with pytest.raises(DatasetError, match="a list is what detections are written as"):
        read_dataset(path)
