"""The README's table of the papers' tables names configs that exist, and all that cite a table."""

from __future__ import annotations

import itertools
import re

import pytest

from helpers.configs import FULL_RUNS, ROOT

README = (ROOT.parent / "README.md").read_text(encoding="utf-8")
TABLE = README[README.index("### Tables and figures of the papers") :].split("\n\n")[2]
ROWS = [line.strip("|").split("|") for line in TABLE.splitlines()[2:]]


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
