"""The entry of a checkpoint that describes its detector."""

from __future__ import annotations

import pytest
import torch

from dense_kd.checkpoint import CheckpointError, class_names, read_content
from dense_kd.checkpoint.description import ENTRY, Description, description_of

FULL = Description({"_target_": "a.B"}, ["dog", "cat"], [3, 7], "RGB", [{"a": 1}], "")


@pytest.mark.parametrize("description", [FULL, Description(None, incomplete="an object")])
def test_it_is_what_was_written_after_the_safe_reader(description, tmp_path):
    torch.save({"model": {}, ENTRY: description.content()}, tmp_path / "a.pth")
    content = read_content(str(tmp_path / "a.pth"))
    assert description_of(content, "a.pth") == description
    assert class_names(content) == description.class_names


@pytest.mark.parametrize("content", [{}, {"model": {}}, {ENTRY: None}, [1], None])
def test_other_files_have_none(content):
    assert description_of(content, "a.pth") is None


def test_one_of_a_later_version_says_so():
    content = {ENTRY: {"format": 2, "models": []}}
    with pytest.raises(CheckpointError, match="a.pth describes its detector in format 2.*config="):
        description_of(content, "a.pth")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 0},
        {"format": "1"},
        {"format": True},
        {"model": "os.system"},
        {"class_names": "dog"},
        {"class_names": ["dog", 3]},
        {"category_ids": [1]},
        {"category_ids": [1, "2"]},
        {"category_ids": [1, 2], "class_names": None},
        {"image_format": 3},
        {"augmentations": {"a": 1}},
        {"incomplete": None},
        {"more": 1},
    ],
    ids=str,
)
def test_a_damaged_one_is_refused(change):
    with pytest.raises(CheckpointError, match="the entry 'dense_kd' of a.pth"):
        description_of({ENTRY: {**FULL.content(), **change}}, "a.pth")


@pytest.mark.parametrize("entry", [3, "text", [], {}])
def test_so_is_what_is_none(entry):
    with pytest.raises(CheckpointError, match="the entry 'dense_kd' of a.pth is .*expected format"):
        description_of({ENTRY: entry}, "a.pth")
