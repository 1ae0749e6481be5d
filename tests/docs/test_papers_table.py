"""The page's table of the papers' tables names configs that exist, and all that cite a table."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from dense_kd import cli
from dense_kd.config import find_config
from helpers.configs import FULL_RUNS, ROOT

TOOLS = str(Path(__file__).parents[2] / "tools")
sys.path.insert(0, TOOLS)  # as for a script that is run
import docs_configs  # noqa: E402

sys.path.remove(TOOLS)

PAGE = docs_configs.TABLE_OF_PAPERS.read_text(encoding="utf-8")
PAPERS = docs_configs.table_of_papers()
ROWS = [(paper, number, cell) for paper, rows in PAPERS.items() for number, cell in rows]
FIGURES = [
    line.strip("|").split("|")
    for line in PAGE.partition("| of | figure | command |\n")[2].split("\n\n")[0].splitlines()[1:]
]
NAMED = {config for row in ROWS for config in docs_configs.configs_in(row[2])}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:2]).strip())
def test_every_config_of_a_row_exists(row):
    configs = docs_configs.configs_in(row[2])
    assert configs, row
    assert [config for config in configs if not (ROOT / config).is_file()] == []


def test_every_table_has_a_row():
    assert [*PAPERS] == ["BCKD", "CrossKD", "PGD", "TID"]
    tables = re.findall(r"\d", "".join(row[1] for row in ROWS))
    assert tables == [*"123456", *"12345678", *"1234566", "7", *"12345"]


def test_every_config_that_cites_a_table_is_in_its_row():
    cited = set()
    for config in FULL_RUNS:
        text = " ".join((ROOT / config).read_text().split('"""')[1].split())
        found = re.search(r"\b(?:BCKD|CrossKD|PGD|TID)(?:, | \()Tables? \d", text)
        if found and "teacher" in (ROOT / config).read_text():
            cited.add(config)
    assert len(cited) > 60 and cited - NAMED == set()


def commands_of(cell: str) -> list[list[str]]:
    return [shlex.split(c)[1:] for c in re.findall(r"`(dense-kd [^`]+ [^`]+)`", cell)]


def test_every_figure_that_shows_something_measured_has_a_row():
    drawings = "BCKD's 1 and 2, CrossKD's 1 and 4, PGD's 4 and TID's 1 and 2 are drawings of"
    assert drawings in " ".join(PAGE.split())
    numbers = re.findall(r"\d", "".join(row[1] for row in FIGURES))
    assert numbers == [*"34", *"2536", *"1235", *"345"]


@pytest.mark.parametrize("row", FIGURES, ids=lambda row: " ".join(row[:2]).strip())
def test_the_command_of_a_figure_is_one_with_a_config_that_exists(row):
    assert commands_of(row[2]) or "as BCKD's 4" in row[2]
    for name, *words in commands_of(row[2]):
        cli.parse_args(name, words)
        for word in words:
            config = word.partition("=")[2] or word.removeprefix("output/")
            if re.fullmatch(r"[a-z]+/\w+_1x", config):
                assert find_config(config), word
