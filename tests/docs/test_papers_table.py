"""The README's table of the papers' tables names configs that exist, and all that cite a table."""

from __future__ import annotations

import itertools
import re
import shlex

import pytest

from dense_kd import cli
from dense_kd.config import find_config
from helpers.configs import FULL_RUNS, ROOT

README = (ROOT.parent / "README.md").read_text(encoding="utf-8")
SECTION = README[README.index("### Tables and figures of the papers") :].split("\n\n")
ROWS, FIGURES = (
    [line.strip("|").split("|") for line in SECTION[place].splitlines()[2:]] for place in (2, 4)
)


def expanded(pattern: str) -> list[str]:
    """Braces, as a shell expands them."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    return ["".join(words) for words in itertools.product(*choices)]


def configs_of(cell: str) -> list[str]:
    return [c for p in re.findall(r"`([\w{},]+/[\w{},]+\.py)`", cell) for c in expanded(p)]


NAMED = {config for row in ROWS for config in configs_of(row[2])}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:2]).strip())
def test_every_config_of_a_row_exists(row):
    configs = configs_of(row[2])
    assert configs, row
    assert [config for config in configs if not (ROOT / config).is_file()] == []


def test_every_table_has_a_row():
    papers = [row[0].strip() for row in ROWS if row[0].strip()]
    assert papers == ["BCKD", "CrossKD", "PGD", "TID"]
    tables = re.findall(r"\d", "".join(row[1] for row in ROWS))
    assert tables == [*"123456", *"12345678", *"1234566", "7", *"12345"]


def test_every_config_that_cites_a_table_is_in_its_row():
    cited = set()
    for config in FULL_RUNS:
        text = " ".join((ROOT / config).read_text().split('"""')[1].split())
        found = re.search(r"\b(?:BCKD|CrossKD|PGD|TID)(?:, | \()Tables? \d", text)
        if found and "teacher" in (ROOT / config).read_text() and "/pgd_" not in config:
            cited.add(config)
    assert len(cited) > 60 and cited - NAMED == set()


def commands_of(cell: str) -> list[list[str]]:
    return [shlex.split(c)[1:] for c in re.findall(r"`(dense-kd [^`]+ [^`]+)`", cell)]


def test_every_figure_that_shows_something_measured_has_a_row():
    drawings = "BCKD's 1 and 2, CrossKD's 1 and 4, PGD's 4 and TID's 1 and 2 are drawings of"
    assert drawings in " ".join(README.split())
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
