#!/usr/bin/env python
"""Write the tables of docs/performance.md from the files in benchmarks/results/<date>_<machine>/.

Each file is what `dense-kd benchmark --json FILE` wrote. With --check nothing is written, and it
ends with 1 if the page is another one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matrix_results import insert_table

from dense_kd.benchmark.schema import read_results
from dense_kd.benchmark.text import PAGE, described, tables

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN = "<!-- written by make bench-pages -->\n"
END = "<!-- end of what make bench-pages wrote -->\n"
NOTHING = "Nothing has been measured and kept yet.\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    args = parser.parse_args(argv)
    before = DOCUMENT.read_text(encoding="utf-8")
    after = insert_table(before, sections(RESULTS), BEGIN, END)
    if args.check:
        if before != after:
            print(f"{DOCUMENT} is not what its results give; run `make bench-pages`")
        return int(before != after)
    DOCUMENT.write_text(after, encoding="utf-8")
    print(f"wrote {DOCUMENT}")
    return 0


def sections(folder: Path) -> str:
    """Of each file of results, the newest folder first."""
    files = sorted(folder.glob("*/*.json"), key=lambda f: f.name)
    files.sort(key=lambda f: f.parent.name, reverse=True)
    return "\n".join(map(section, files)) or NOTHING


def section(file: Path) -> str:
    results = read_results(file)
    facts = "\n".join(f"- {line}" for line in described(results).splitlines())
    parts = [f"### {file.parent.name}/{file.name}", facts, *tables(results, PAGE)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
