from __future__ import annotations

import json
import os

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from dense_kd.data import DatasetError, register_annotations
from helpers.checked_runs import unregister

CATEGORIES = [{"id": 9, "name": "square"}, {"id": 4, "name": "disc"}]


@pytest.fixture
def own(tmp_path):
    """A function that writes a JSON file and registers it as "own_cells"."""

    def register(content, name="a.json", encoding="utf-8"):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text, encoding=encoding)
        register_annotations("own_cells", tmp_path / name, tmp_path)

    yield register
    if "own_cells" in DatasetCatalog:
        unregister("own_cells")


def test_classes_are_known_at_once_and_those_that_loading_finds(own, tmp_path):
    own({"categories": CATEGORIES, "images": [], "annotations": []})
    metadata = MetadataCatalog.get("own_cells")
    assert metadata.thing_classes == ["disc", "square"]
    assert metadata.thing_dataset_id_to_contiguous_id == {4: 0, 9: 1}
    assert metadata.json_file == str(tmp_path / "a.json")
    assert (metadata.image_root, metadata.evaluator_type) == (str(tmp_path), "coco")
    assert DatasetCatalog.get("own_cells") == []
    assert metadata.thing_classes == ["disc", "square"]


def test_nothing_behind_the_categories_is_parsed(own):
    own(
        '\n{"info": {"categories": 1}, "categories" :\t[{"id": 1, "name": "a"}] , "images": [broken'
    )
    assert MetadataCatalog.get("own_cells").thing_classes == ["a"]


def test_categories_may_come_last(own):
    own({"images": [{"id": 1, "file_name": '{"categories": '}], "categories": CATEGORIES},
        encoding="utf-8-sig")  # fmt: skip
    assert MetadataCatalog.get("own_cells").thing_classes == ["disc", "square"]


def test_the_same_again_does_nothing_also_by_another_path(own, tmp_path, monkeypatch):
    own({"categories": CATEGORIES})
    monkeypatch.chdir(tmp_path)
    register_annotations("own_cells", "a.json", os.path.join("..", tmp_path.name))
    with pytest.raises(DatasetError, match="'own_cells' is registered already, with the file"):
        own({"categories": CATEGORIES}, "b.json")


@pytest.mark.parametrize(
    "content",
    ["", "[1]", "{", '{"categories": 3}', '{"categories": [{"id": 1}]}', '{"images": []}',
     '{"a" 1}', '{"categories": [{"id": "x", "name": "a"}]}', "[" * 99999],
)  # fmt: skip
def test_a_file_without_categories_is_refused(own, content):
    with pytest.raises(DatasetError, match="a.json is no COCO file with categories"):
        own(content)
    assert "own_cells" not in DatasetCatalog


def test_missing_files_and_folders_are_refused_with_their_names(own, tmp_path):
    with pytest.raises(DatasetError, match="gone.json: No such file"):
        register_annotations("own_cells", tmp_path / "gone.json", tmp_path)
    with pytest.raises(DatasetError, match="image_root .*gone: no such folder"):
        register_annotations("own_cells", tmp_path / "gone.json", tmp_path / "gone")
    with pytest.raises(DatasetError, match="'coco_2017_val' is registered already"):
        register_annotations("coco_2017_val", tmp_path / "gone.json", tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DatasetError, match="a.json is not a file"):
        register_annotations("own_cells", tmp_path / "a.json", tmp_path)


def test_an_id_that_is_no_number_is_refused(own):
    with pytest.raises(DatasetError, match="OverflowError"):
        own('{"categories": [{"id": 1e999, "name": "a"}]}')


@pytest.mark.parametrize(("part", "value"), [("id", 4), ("name", "disc")])
def test_categories_of_one_id_or_one_name_are_refused(own, part, value):
    with pytest.raises(DatasetError, match=f"several categories of the {part} {value!r}"):
        own({"categories": [*CATEGORIES, {"id": 1, "name": "ring", part: value}]})
    assert "own_cells" not in DatasetCatalog
