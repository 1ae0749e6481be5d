"""The page on choosing a method says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dense_kd.methods import method_classes

PAGE = Path(__file__).parents[2] / "docs" / "choosing_a_method.md"
ROW = re.compile(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| ([\d.]+|-) \|$", re.MULTILINE)
ROWS = {name: (needs, memory) for name, needs, memory in ROW.findall(PAGE.read_text("utf-8"))}
METHODS = method_classes()


def test_it_has_every_method():
    assert set(ROWS) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_needs_is_what_it_checks(name):
    needs = METHODS[name]().needs
    stated = {
        "towers": bool(needs.taps),
        "priors": needs.same_priors,
        "levels": needs.same_levels,
        "as many levels": needs.as_many_levels,
        "classes": needs.same_classes,
        "distributions": needs.distribution,
    }
    expected = [word for word, needed in stated.items() if needed] or ["-"]
    assert ROWS[name][0].split(", ") == expected


@pytest.mark.parametrize("name", METHODS)
def test_its_memory_is_that_of_the_docstring(name):
    text = " ".join(METHODS[name].__doc__.split())
    documented = re.search(r"at their peak, ([\d.]+) times", text)
    if documented is None:
        assert ROWS[name][1] == "-" and "are those of the method inside" in text
    else:
        assert ROWS[name][1] == documented.group(1)


def test_every_paper_number_stands_in_a_config():
    """But for methods of other papers that have no config."""
    configs = PAGE.parents[1] / "configs"
    known = " ".join(
        path.read_text("utf-8").split('"""')[1] for path in configs.rglob("*_r50_*.py")
    )
    page = PAGE.read_text("utf-8").split("## What they brought")[1].split("## How strong")[0]
    for number in re.findall(r"\d\d\.\d", page):
        assert number in known, f"{number} AP is in no config's docstring"
