"""CrowdHuman's files: whole ones, and broken ones with their line."""

from __future__ import annotations

import json
import re

import pytest
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from dense_kd import get_config
from dense_kd.data import DatasetError, detection_dataset
from dense_kd.data.crowdhuman import load_crowdhuman, register_all_crowdhuman
from helpers.builders import tiny_ddod

PERSON = {"tag": "person", "fbox": [-3, 5, 20, 30], "vbox": [0, 5, 17, 30], "extra": {"occ": 0}}
MASK = {"tag": "mask", "fbox": [10, 10, 8, 8]}
UNSURE = {"tag": "person", "fbox": [1, 1, 5, 5], "extra": {"ignore": 1}}
FLAT = {"tag": "person", "fbox": [1, 1, 0, 5]}


@pytest.fixture
def write(tmp_path):
    """Writes an ``.odgt`` with images of 40 x 30 pixels; returns what is loaded."""

    def load(*records):
        lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
        odgt = tmp_path / "annotation_train.odgt"
        text = "".join(f"{line}\n" for line in lines)
        odgt.write_text(text, encoding="utf-8", errors="surrogateescape")
        return load_crowdhuman(str(odgt), str(tmp_path / "Images"))

    (tmp_path / "Images").mkdir()
    for name in ("1,a", "2,b"):
        Image.new("RGB", (40, 30)).save(tmp_path / "Images" / f"{name}.jpg")
    return load


def test_persons_are_read_and_what_is_to_be_ignored_is_a_crowd(write, tmp_path):
    first, second = write(
        {"ID": "1,a", "gtboxes": [PERSON, MASK, UNSURE, FLAT]}, "", {"ID": "2,b", "gtboxes": []}
    )
    assert first["file_name"] == str(tmp_path / "Images" / "1,a.jpg")
    assert (first["image_id"], first["width"], first["height"]) == ("1,a", 40, 30)
    assert [a["bbox"] for a in first["annotations"]] == [
        [-3, 5, 20, 30], [10, 10, 8, 8], [1, 1, 5, 5],
    ]  # fmt: skip
    assert [a["iscrowd"] for a in first["annotations"]] == [0, 1, 1]
    assert {a["bbox_mode"] for a in first["annotations"]} == {BoxMode.XYWH_ABS}
    assert second["annotations"] == []


def test_what_is_to_be_ignored_is_never_ground_truth_of_a_training(write, monkeypatch):
    images = write(
        {"ID": "1,a", "gtboxes": [PERSON, MASK, UNSURE]}, {"ID": "2,b", "gtboxes": [MASK, UNSURE]}
    )
    monkeypatch.setitem(DatasetCatalog.data, "crowdhuman_train", lambda: images)
    train = get_config("common/data/crowdhuman.py").dataloader.train
    train.mapper.augmentations = []
    (image,) = detection_dataset(train.dataset.names)  # the other has nobody to learn from
    inputs = instantiate(train.mapper)(image)
    (truth,) = tiny_ddod(num_classes=1).ground_truth([inputs])
    assert truth.gt_boxes.tensor.tolist() == [[0, 5, 17, 30]]  # the person, inside of the image
    assert truth.gt_classes.tolist() == [0]


@pytest.mark.parametrize(
    "record, said",
    [
        ('{"ID": "1,a", "gtboxes": [{"tag": "per', "line 2: it is no JSON .* cut off"),
        ({"gtboxes": []}, "line 2: expected an ID and gtboxes, got"),
        ({"ID": "1,a", "gtboxes": [PERSON, {**PERSON, "tag": "car"}]}, "line 2, box 1: the tag 'c"),
        ({"ID": "1,a", "gtboxes": [{**PERSON, "fbox": [1, 2, 3]}]}, r"box 0: fbox=\[1, 2, 3\]: ex"),
        ({"ID": "1,a", "gtboxes": [{**PERSON, "fbox": [1, 2, 3, 10**400]}]}, r"box 0: fbox=\[1, 2"),
        ({"ID": "1,a", "gtboxes": [{**PERSON, "fbox": [1, 2, True, 4]}]}, r"box 0: fbox=\[1, 2, T"),
        ({"ID": "1,a", "gtboxes": [{**PERSON, "extra": "x"}]}, "box 0: extra='x': expected its ig"),
        ({"ID": "1,a", "gtboxes": [{**PERSON, "extra": {"ignore": "no"}}]}, "box 0: extra={'ignor"),
        ('{"ID": "1,\udcff', "line 2: it is no JSON .*invalid start byte"),
        ("[" * 100_000, "line 2: it is no JSON"),
        ({"ID": "2,b", "gtboxes": []}, "line 2: the ID '2,b' is that of line 1"),
        (
            {"ID": "3,c", "gtboxes": []},
            r"1 of its 2 images .*3,c.jpg \(line 2\) does not",
        ),
    ],
)
def test_a_broken_line_is_named(write, record, said):
    with pytest.raises(DatasetError, match=said):
        write({"ID": "2,b", "gtboxes": [PERSON]}, record)


def test_a_missing_or_empty_file_is_named(write, tmp_path):
    with pytest.raises(DatasetError, match="annotation_train.odgt is empty"):
        write()
    with pytest.raises(DatasetError, match=re.escape("none.odgt does not exist")):
        load_crowdhuman(str(tmp_path / "none.odgt"), str(tmp_path))


def test_it_is_registered_where_the_datasets_are(tmp_path):
    for split in ("train", "val"):
        assert MetadataCatalog.get(f"crowdhuman_{split}").evaluator_type == "crowdhuman"
        DatasetCatalog.remove(f"crowdhuman_{split}")
        MetadataCatalog.remove(f"crowdhuman_{split}")
    register_all_crowdhuman(str(tmp_path))
    assert MetadataCatalog.get("crowdhuman_val").odgt_file == f"{tmp_path}/annotation_val.odgt"
    for split in ("train", "val"):
        DatasetCatalog.remove(f"crowdhuman_{split}")
        MetadataCatalog.remove(f"crowdhuman_{split}")
    register_all_crowdhuman()
    register_all_crowdhuman()  # again, without a word
