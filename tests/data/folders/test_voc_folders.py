from __future__ import annotations

from pathlib import Path

import pytest

from dense_kd.data import DatasetError, read_dataset
from dense_kd.data.folders.voc_xml import XMLError, read_voc_file
from helpers.own_datasets import boxes_of, scenes, voc_xml, write_image, write_voc

EXPECTED = [(0, [2, 3, 14, 17]), (1, [18, 4, 30, 25])]


def reasons(dataset):
    return [(p.action, p.what, p.reason) for p in dataset.problems]


def test_lists_of_image_sets_make_the_parts(tmp_path):
    stems = list(scenes(8))
    lists = {"train": stems[:4], "val": stems[4:6], "test": stems[6:8], "trainval": stems[:6],
             "disc_train": stems[:1]}  # fmt: skip
    dataset = read_dataset(write_voc(tmp_path, scenes(8), lists))
    assert (dataset.layout, dataset.classes) == ("voc", ["disc", "square"])
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [4, 2, 2]
    assert boxes_of(dataset.train)["000"] == EXPECTED
    ids = [r["image_id"] for r in dataset.train + dataset.val + dataset.test]
    assert ids == list(range(1, 9))
    assert len(dataset.problems) == 0


@pytest.mark.parametrize("lists", [{}, {"trainval": range(8)}, {"train": range(8)}])
def test_without_a_list_for_validation_one_is_drawn(tmp_path, lists):
    named = {part: [f"{i:03d}" for i in stems] for part, stems in lists.items()}
    dataset = read_dataset(write_voc(tmp_path, scenes(10), named), seed=3)
    count = 8 if lists else 10
    assert (len(dataset.train), len(dataset.val)) == (count - 2, 2)
    assert f"2 of its {count} images were drawn for val (val_fraction=0.2, seed=3)" in dataset.split


def test_several_sets_have_their_own_lists(tmp_path):
    for year, offset in (("VOC2007", 0), ("VOC2012", 6)):
        content = {f"{int(k) + offset:03d}": v for k, v in scenes(6).items()}
        stems = list(content)
        write_voc(tmp_path / year, content, {"train": stems[:3], "val": stems[3:5]})
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.val)) == (6, 4)
    assert dataset.problems.summary() == "noted 2 files (annotations that no list names)"
    assert str(next(iter(dataset.problems))).endswith("names (1, as 005.xml)")


def test_xml_files_beside_the_images_of_each_part_are_recognised(tmp_path):
    for part, count in (("train", 3), ("valid", 2)):
        for stem, objects in scenes(count).items():
            write_image(tmp_path / part / f"{stem}_jpg.rf.0f{count}.jpg")
            name = f"{stem}_jpg.rf.0f{count}"
            (tmp_path / part / f"{name}.xml").write_text(voc_xml(f"{name}.jpg", objects))
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.val)) == (3, 2)
    assert all(f"{tmp_path}/valid/" in r["file_name"] for r in dataset.val)


def test_coordinates_count_from_one_and_include_the_last_pixel(tmp_path):
    objects = [("disc", [0, 0, 40, 30]), ("square", [38, 28, 40, 30])]
    dataset = read_dataset(write_voc(tmp_path, {"a": objects, "b": objects}))
    assert boxes_of(dataset.train + dataset.val)["a"] == [
        (0, [0, 0, 40, 30]),
        (1, [38, 28, 40, 30]),
    ]
    assert len(dataset.problems) == 0


def test_difficult_objects_are_objects(tmp_path):
    root = write_voc(tmp_path, scenes(3))
    path = root / "Annotations/000.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    dataset = read_dataset(root)
    assert all(len(r["annotations"]) == 2 for r in dataset.train + dataset.val)
    assert not any(a["iscrowd"] for r in dataset.train for a in r["annotations"])


def test_lists_of_windows_with_blank_lines_suffixes_and_a_second_column_are_read(tmp_path):
    objects = {"a b": [("disc", [1, 1, 9, 9])], **scenes(4)}
    root = write_voc(tmp_path, objects, {"val": ["002", "003"]})
    (root / "ImageSets/Main/train.txt").write_bytes(b"\xef\xbb\xbfa b\r\n\r\n000.jpg\r\n001 -1\r\n")
    dataset = read_dataset(root)
    assert sorted(boxes_of(dataset.train)) == ["000", "001", "a b"]
    assert len(dataset.problems) == 0


def test_what_a_list_names_and_what_it_lacks(tmp_path):
    root = write_voc(tmp_path, scenes(4), {"train": ["000", "gone", "001"], "val": ["002"]})
    (root / "JPEGImages/001.jpg").unlink()
    dataset = read_dataset(root)
    assert reasons(dataset) == [
        ("dropped", "image", "listed, but without annotation file"),
        ("noted", "file", "annotations that no list names"),
        ("dropped", "image", "listed, but missing"),
    ]
    assert list(boxes_of(dataset.train)) == ["000"]
    (root / "ImageSets/Main/train.txt").write_text("gone\n")
    with pytest.raises(DatasetError, match="train.txt names no image that has an annotation file"):
        read_dataset(root)


def test_an_image_without_a_file_is_not_taken_for_empty(tmp_path):
    root = write_voc(tmp_path, scenes(3))
    write_image(root / "JPEGImages/new.jpg")
    dataset = read_dataset(root)
    assert reasons(dataset) == [("dropped", "image", "without annotation file")]
    assert next(iter(dataset.problems)).file == "JPEGImages/new.jpg"


@pytest.mark.parametrize("sites", [("siteA/train", "siteB/val"), ("train/siteA", "train/siteB")])
@pytest.mark.parametrize("missing", [["003"], ["001", "003", "005"]])
def test_missing_images_are_not_replaced_by_those_of_another_set(tmp_path, sites, missing):
    for site in sites:
        write_voc(tmp_path / site, scenes(6))
    for stem in missing:
        (tmp_path / sites[0] / f"JPEGImages/{stem}.jpg").unlink()
    dataset = read_dataset(tmp_path)
    every = [Path(r["file_name"]).relative_to(tmp_path) for r in dataset.train + dataset.val]
    assert sorted(p.stem for p in every if str(p).startswith(sites[0])) == [
        stem for stem in scenes(6) if stem not in missing
    ]
    assert sum(str(p).startswith(sites[1]) for p in every) == 6
    assert reasons(dataset) == [("dropped", "image", "listed, but missing")] * len(missing)


def test_annotations_of_one_name_in_several_folders_are_dropped_and_listed(tmp_path):
    root = write_voc(tmp_path, scenes(4))
    for folder in ("a", "b"):
        (root / "Annotations" / folder).mkdir()
        text = voc_xml("001.jpg", [("disc", [1, 1, 9, 9])])
        (root / "Annotations" / folder / "001.xml").write_text(text)
    (root / "Annotations/001.xml").unlink()
    described = "train: {annotations: Annotations, images: JPEGImages}\n"
    (root / "data.yaml").write_text(described)
    dataset = read_dataset(root / "data.yaml")
    assert sorted(boxes_of(dataset.train + dataset.val)) == ["000", "002", "003"]
    reason = ("dropped", "file", "annotations of one name in several folders")
    assert reasons(dataset) == [reason, reason, ("dropped", "image", "without annotation file")]


def test_broken_files_and_objects_are_dropped_and_listed(tmp_path):
    good = [("disc", [2, 2, 9, 9])]
    broken = [
        ("disc", ["x", 2, 9, 9]),
        ("disc", [2, 2, "nan", 9]),
        ("", [2, 2, 9, 9]),
        ("disc", [9, 9, 10, 9]),
        ("disc", [30, 9, 20, 20]),
        ("disc", [30, 20, 50, 29]),
    ]
    root = write_voc(tmp_path, {name: good for name in "abcdefgh"})
    files = root / "Annotations"
    (files / "a.xml").write_text(voc_xml("a.jpg", [*good, *broken]))
    (files / "b.xml").write_text("<annotation><object>")
    (files / "c.xml").write_text("<html></html>")
    (files / "d.xml").write_text(voc_xml("d.jpg", good).replace("bndbox", "polygon"))
    (files / "e.xml").write_bytes(b"")
    (files / "f.xml").unlink()
    (files / "f.xml").mkdir()
    dataset = read_dataset(root)
    listed = {str(problem).split(" (")[0] for problem in dataset.problems}
    assert listed == {
        "dropped image: Annotations/b.xml: annotation file unreadable",
        "dropped image: Annotations/c.xml: annotation file unreadable",
        "dropped image: Annotations/e.xml: annotation file unreadable",
        "dropped image: JPEGImages/f.jpg: without annotation file",
        "dropped box: Annotations/a.xml, object 2: without four finite coordinates",
        "dropped box: Annotations/a.xml, object 3: without four finite coordinates",
        "dropped box: Annotations/a.xml, object 4: without a name",
        "dropped box: Annotations/a.xml, object 5: without area",
        "dropped box: Annotations/a.xml, object 6: without area",
        "repaired box: Annotations/a.xml, object 7: clipped to the image",
        "dropped box: Annotations/d.xml, object 1: without four finite coordinates",
        "dropped image: JPEGImages/d.jpg: of whose boxes none can be used",
    }  # fmt: skip
    found = boxes_of(dataset.train + dataset.val)
    assert found["a"] == [(0, [2, 2, 9, 9]), (0, [30, 20, 40, 29])]


def test_the_image_is_that_of_the_files_own_name_or_the_one_it_names(tmp_path):
    root = write_voc(tmp_path, scenes(3))
    (root / "JPEGImages/000.jpg").rename(root / "JPEGImages/first picture.JPG")
    path = root / "Annotations/000.xml"
    path.write_text(path.read_text().replace("000.jpg", "C:\\photos\\first picture.JPG"))
    write_image(root / "JPEGImages/001.png")  # beside 001.jpg, which the file names
    dataset = read_dataset(root)
    names = {r["file_name"].rsplit("/", 1)[-1] for r in dataset.train + dataset.val}
    assert names == {"first picture.JPG", "001.jpg", "002.jpg"}


@pytest.mark.parametrize(
    "text, message",
    [
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
         "document type"),
        ('<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;">]><annotation>&z;</annotation>',
         "document type"),
        ("<annotation>&x;</annotation>", "no valid XML"),
        ("<annotation></annotation><annotation/>", "no valid XML"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "no valid XML"),
        ("<a>" * 50_000, "no valid XML"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_cannot_open_files_or_grow(tmp_path, text, message, encoding):
    path = tmp_path / "a.xml"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(XMLError, match=message):
        read_voc_file(path)


def test_xml_may_be_nested_deeply(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<annotation>" + "<a>" * 20_000 + "</a>" * 20_000 + "</annotation>")
    assert read_voc_file(path).objects == []


def test_files_without_any_class_are_refused(tmp_path):
    root = write_voc(tmp_path, {"a": [], "b": []})
    with pytest.raises(DatasetError, match="no objects with a class .voc."):
        read_dataset(root)


def test_a_class_that_differs_in_case_alone_is_noted_with_its_file(tmp_path):
    root = write_voc(tmp_path, scenes(5))
    path = root / "Annotations/003.xml"
    path.write_text(path.read_text().replace("disc", "Disc"))
    problem = next(p for p in read_dataset(root).problems if p.what == "class")
    assert str(problem) == (
        "noted class: Annotations/003.xml, Disc: differs from another in case alone, so they are "
        "two classes ('Disc' (1 boxes) and 'disc' (4 boxes))"
    )


def test_a_class_that_is_evaluated_on_but_not_learnt_is_noted(tmp_path):
    images = {**scenes(4), "v": [("ring", [2, 2, 9, 9])]}
    lists = {"train": list(scenes(3)), "val": ["003", "v"]}
    dataset = read_dataset(write_voc(tmp_path, images, lists))
    assert dataset.problems.summary() == (
        "noted 1 class (without a box to learn from, though its AP counts)"
    )
    assert next(iter(dataset.problems)).detail == "1 in val"
