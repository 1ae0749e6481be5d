"""``dense-kd list``."""

from __future__ import annotations

import json

import pytest

from dense_kd.cli import main
from dense_kd.cli.list import KINDS, table
from dense_kd.yacs_config import METHODS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [80, 120])
def test_a_list_fits_the_terminal(kind, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    patterns = ["gfl"] if kind in ("detectors", "teachers", "configs") else []
    assert main(["list", kind, *patterns]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines and max(map(len, lines)) <= columns
    assert any("gfl" in line.lower() or "BCKD" in line for line in lines)


def test_without_a_kind_it_says_how_many_there_are_of_each(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [["dense-kd", "list", kind] for kind in KINDS]
    assert main(["list", "--json"]) == 0
    assert [int(line.split()[3]) for line in lines] == [
        *json.loads(capsys.readouterr().out).values()
    ]


def test_programs_get_all_of_it_as_json(capsys):
    assert main(["list", "teachers", "ddod/*", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry == {
        "config": "ddod/r50_1x.py",
        "weights": "mmdet://ddod_r50_fpn_1x_coco",
        "ap": 41.7,
        "parameters": 32375358,
    }


def test_what_nothing_is_called_is_said_in_a_line(capsys):
    assert main(["list", "methods", "bkcd"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        f"dense-kd: nothing of {len(METHODS)} is called 'bkcd'; did you mean BCKD"
    )
    assert said.count("\n") == 1


def test_columns_are_aligned_and_the_last_is_wrapped():
    rows = [["a", "1.0 M", "two words that go on\nbelow"], ["name", "-", "http://" + "x" * 40]]
    assert table(rows, 34) == [
        "a     1.0 M  two words that go on",
        "             below",
        "name  -",
        "    http://" + "x" * 40,
    ]
