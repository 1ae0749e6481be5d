"""Cells of the test matrix, their results, and the table of docs/developing.md: test_matrix.py."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "test_matrix.json"
PAGE = ROOT / "docs" / "developing.md"
BEGIN = "<!-- written by make test-matrix -->\n"
END = "<!-- end of what make test-matrix wrote -->\n"


@dataclass(frozen=True)
class Versions:
    """What an environment holds: a Python and pins for pip."""

    python: str
    torch: str
    torchvision: str
    other_pins: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"py{self.python}-torch{self.torch}"

    @property
    def pins(self) -> list[str]:
        return [f"torch=={self.torch}", f"torchvision=={self.torchvision}", *self.other_pins]


@dataclass(frozen=True)
class Cell:
    """A row of the table: an environment, and whether detectron2 is main or 0.5."""

    versions: Versions
    main: bool = False


OLDEST = Versions("3.9", "2.1.0", "0.16.0", ("numpy<2",))  # this torch was built for NumPy 1
PINNED = Versions("3.11", "2.12.1", "0.27.1")  # the torch of `make test`
NEWEST = Versions("3.13", "2.14.1", "0.29.1")

CELLS = {
    "oldest": Cell(OLDEST),
    "pinned": Cell(PINNED),
    "newest": Cell(NEWEST),
    "oldest-main": Cell(OLDEST, main=True),
    "pinned-main": Cell(PINNED, main=True),
    "newest-main": Cell(NEWEST, main=True),
}


def read_report(path: Path) -> dict[str, int]:
    """Count the tests in a JUnit file; one that errs in its set-up has failed."""
    suites = list(ET.parse(path).getroot().iter("testsuite"))

    def total(name: str) -> int:
        return sum(int(suite.get(name, 0)) for suite in suites)

    failed, skipped = total("failures") + total("errors"), total("skipped")
    return {"passed": total("tests") - failed - skipped, "failed": failed, "skipped": skipped}


def merge(results: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Results in the order of ``CELLS``: ``new`` ones replace old ones, unknown cells go."""
    both = {**results, **new}
    return {name: both[name] for name in CELLS if name in both}


def summary(result: dict[str, Any]) -> str:
    """What came out of a cell, in a few words."""
    if "error" in result:
        return result["error"]
    return ", ".join(f"{result[key]:,} {key}" for key in ("passed", "failed", "skipped"))


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table; a cell without one is a row that says so."""
    columns = ["cell", "Python", "torch", "torchvision", "NumPy", "detectron2", "tests", "date"]
    rows = [columns, ["---"] * len(columns)]
    for name, cell in CELLS.items():
        versions, result = cell.versions, results.get(name)
        row = [f"`{name}`", versions.python, versions.torch, versions.torchvision]
        detectron2 = "main" if cell.main else "0.5"
        if result is None:
            rows.append([*row, "", detectron2, "not run yet", ""])
            continue
        if result.get("detectron2_commit"):
            detectron2 = f"main ({result['detectron2_commit']})"
        keys = ("python", "torch", "torchvision", "numpy")
        row = [f"`{name}`", *(result.get(key, "") for key in keys), detectron2]
        rows.append([*row, summary(result), f"{result['date']} ({result['commit']})"])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def insert_table(text: str, rows: str, first: str = BEGIN, last: str = END) -> str:
    """Return ``text`` with ``rows`` between the two markers.

    Raises:
        ValueError: If the markers are not there once each, in their order.
    """
    begin, end = text.find(first), text.find(last)
    if text.count(first) != 1 or text.count(last) != 1 or end < begin:
        raise ValueError(f"expected one line {first.strip()!r} and one {last.strip()!r} after it")
    return text[: begin + len(first)] + rows + text[end:]


def read_results() -> dict[str, Any]:
    """The stored results, by name of cell."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def store(name: str, result: dict[str, Any]) -> None:
    """Write the result of a cell into the file of results and into the page."""
    results = merge(read_results(), {name: result})
    page = insert_table(PAGE.read_text(encoding="utf-8"), table(results))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(page, encoding="utf-8")
