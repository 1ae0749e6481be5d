"""Files and folders that commands write are looked at first, and nobody else's is replaced."""

from __future__ import annotations

import json

import pytest

from dense_kd.cli import main
from dense_kd.json_files import check_json, write_json

# What is read is not there, so that it would be an error if it were looked at first.
WRITING = {
    "errors --json": ["errors", "none.json", "none.json", "--json"],
    "errors --plot": ["errors", "none.json", "none.json", "--plot"],
    "diagnose --json": ["diagnose", "none.py", "--json"],
    "diagnose --plot": ["diagnose", "none.py", "--plot"],
    "benchmark --json": ["benchmark", "none.py", "--json"],
    "benchmark --profile": ["benchmark", "none.py", "--profile"],
    "eval --json": ["eval", "none.py", "none.pth", "--json"],
    "maps --output": ["maps", "none.py", "--images", "none.png", "--output"],
    "report --output": ["report", "none", "--output"],
    "export --output": ["export", "none.pth", "--to", "onnx", "--output"],
    "study --results": ["study", "quickstart", "--dry-run", "--results"],
    "study --output": ["study", "quickstart", "--output"],
    "label --output": ["label", "none.pth", ".", "--calibrate", "none", "--output"],
}
SUFFIXES = {"--plot": ".png", "--profile": ".txt"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("option", WRITING)
def test_an_output_that_cannot_be_written_is_said_before_the_work(option, tmp_path, capsys):
    (tmp_path / "afile").write_text("by hand")
    suffix = SUFFIXES.get(option.split()[1], ".json")
    assert main([*WRITING[option], f"afile/below/out{suffix}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "afile is a file, expected a folder" in line
    assert (tmp_path / "afile").read_text() == "by hand"


@pytest.mark.parametrize("option", [name for name in WRITING if name.endswith("--json")])
@pytest.mark.parametrize("content", ["by hand", "[]", '{"images": [], "annotations": []}'])
def test_numbers_are_not_written_over_a_file_of_somebody_else(option, content, tmp_path, capsys):
    (tmp_path / "val.json").write_text(content)
    assert main([*WRITING[option], "val.json"]) == 1
    assert "val.json is there already, and this command has not written" in capsys.readouterr().err
    assert (tmp_path / "val.json").read_text() == content


def test_numbers_of_an_earlier_time_and_empty_files_are_replaced(tmp_path):
    write_json(tmp_path / "a.json", {"differences": {}, "runs": {}})
    (tmp_path / "b.json").touch()
    for name in ("a.json", "b.json", "new/c.json", None):
        check_json(name, "metrics", "differences")
    assert json.loads((tmp_path / "a.json").read_text()) == {"differences": {}, "runs": {}}


def test_an_output_that_is_no_file_is_refused(capsys):
    assert main([*WRITING["errors --json"], "/dev/null"]) == 1
    assert "/dev/null is a device or a pipe, expected a file" in capsys.readouterr().err
