"""The configs that a distillation writes are Python, whatever images and classes are called."""

from __future__ import annotations

import os
import random
import sys

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from dense_kd.data.folders import write_annotations
from dense_kd.engine import load_config
from dense_kd.pipeline.config_files import _list, _wrapped, write_configs
from dense_kd.pipeline.options import DistillOptions
from dense_kd.pipeline.plan import make_plan
from helpers.own_datasets import scenes, write_yolo
from helpers.small_distillation import SMALL

COCO = [each["name"] for each in COCO_CATEGORIES if each["isthing"]]
ODD = " aZ9_-,#'\"\\{}[]\n\t\0äé\u00a0\u2028漢\U0001f600"


def evaluated(code: str) -> list[str]:
    names: dict[str, list[str]] = {}
    exec(compile(code, "config.py", "exec"), names)
    return names["CLASSES"]


@pytest.mark.parametrize("seed", range(20))
def test_a_list_of_names_is_the_same_list_in_python(seed):
    rng = random.Random(seed)
    names = [
        "".join(rng.choices(ODD, k=rng.randint(1, 40 if seed % 2 else 200)))
        for _ in range(rng.randint(1, 40))
    ]
    assert evaluated(_list("CLASSES", names)) == names
    title = names[0].replace("\0", "")  # which no path has
    assert evaluated(f'"""{_wrapped(title)}"""\n{_list("CLASSES", names)}') == names


def test_lines_of_a_list_hold_whole_items_and_at_most_100_columns():
    assert evaluated(_list("CLASSES", COCO)) == COCO
    lines = _list("CLASSES", COCO).splitlines()
    assert 60 < max(map(len, lines[1:-2])) <= 100
    assert _list("CLASSES", ["a", "traffic light"]) == 'CLASSES = ["a", "traffic light"]'
    assert _list("CLASSES", ["a", "b" * 99, "c"]).splitlines()[1:-1] == [
        '    "a",',
        f'    "{"b" * 99}",',
        '    "c",',
    ]


@pytest.fixture
def odd_data(tmp_path):
    """Classes of COCO in a folder whose name has a quote, a backslash and a byte of Latin-1."""
    if sys.platform == "darwin":
        pytest.skip("names of files are Unicode here")
    root = tmp_path / os.fsdecode(b'a "b" \\x caf\xe9')
    write_yolo(root / "images/train", root / "labels/train", scenes(4))
    write_yolo(root / "images/val", root / "labels/val", {"v": scenes(1)["000"]})
    (root / "classes.txt").write_text("\n".join(COCO))
    return root


def test_configs_of_odd_names_are_loaded_with_these_names(odd_data, tmp_path):
    plan = make_plan(str(odd_data), DistillOptions(**SMALL, output=str(tmp_path / "out")))
    (tmp_path / "out" / "data").mkdir(parents=True)
    write_annotations(plan.data, tmp_path / "out" / "data")
    for file in write_configs(plan).values():
        load_config(str(file))
    assert MetadataCatalog.get(f"{plan.name}_val").thing_classes == COCO
    [image] = DatasetCatalog.get(f"{plan.name}_val")
    assert image["file_name"] == str(odd_data / "images/val/v.png")
