from __future__ import annotations

import json

import pytest

from dense_kd.data.folders import Problems


@pytest.fixture
def problems(tmp_path):
    found = Problems(tmp_path)
    found.add(
        "dropped", "box", "without area", tmp_path / "a.xml", "object 1", (1.0, 2.0, 1.0, 2.0)
    )
    found.add("dropped", "box", "without area", tmp_path / "b é.xml", "object 3")
    found.add("dropped", "box", "outside the image", "/elsewhere/c.xml", "object 2")
    found.add("dropped", "image", "unreadable", tmp_path / "x\udcff.jpg")
    found.add("repaired", "box", "clipped to the image", tmp_path / "a.xml", "object 9", "x" * 300)
    return found


def test_the_summary_is_one_line_with_the_reasons(problems, tmp_path):
    assert problems.summary() == (
        "dropped 3 boxes (2 without area, 1 outside the image), 1 image (unreadable); "
        "repaired 1 box (clipped to the image)"
    )
    assert len(problems) == 5
    assert problems.count("dropped") == 4 and problems.count("dropped", "image") == 1
    assert Problems(tmp_path).summary() == "no problems found"


def test_the_text_file_has_a_line_for_each(problems, tmp_path):
    lines = problems.write(tmp_path / "deep/problems.txt").read_text(encoding="utf-8").split("\n")
    assert lines[0] == problems.summary()
    assert lines[2:5] == [
        "dropped box: a.xml, object 1: without area ((1.0, 2.0, 1.0, 2.0))",
        "dropped box: b é.xml, object 3: without area",
        "dropped box: /elsewhere/c.xml, object 2: outside the image",
    ]
    assert len(lines) == 8


def test_the_json_file_holds_all_entries(problems, tmp_path):
    content = json.loads(problems.write(tmp_path / "problems.json").read_text(encoding="utf-8"))
    assert content["summary"] == problems.summary()
    assert content["problems"][0] == {
        "action": "dropped", "what": "box", "reason": "without area", "file": "a.xml",
        "item": "object 1", "detail": "(1.0, 2.0, 1.0, 2.0)",
    }  # fmt: skip


def test_an_action_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="action='lost': expected one of"):
        Problems(tmp_path).add("lost", "box", "gone", "a")
