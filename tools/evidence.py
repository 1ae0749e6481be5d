#!/usr/bin/env python
"""Write docs/evidence/results.md, its figures and README's table from benchmarks/results/study.

With --check nothing is written, and it ends with 1 if a file is another one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matrix_results import insert_table

from dense_kd.errors import DenseKDError
from dense_kd.study.evidence import headline, write_evidence

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "study"
PAGES = ROOT / "docs" / "evidence"
README = ROOT / "README.md"
BEGIN = "<!-- written by make evidence -->\n"
END = "<!-- end of what make evidence wrote -->\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    args = parser.parse_args(argv)
    try:
        others = write_evidence(RESULTS, PAGES, args.check)
        others += write_readme(args.check)
    except DenseKDError as error:
        print(error, file=sys.stderr)
        return 1
    names = ", ".join(file.relative_to(ROOT).as_posix() for file in others)
    if args.check:
        if others:
            print(f"not what the results give, run `make evidence`: {names}")
        return int(bool(others))
    print(f"wrote {names or 'nothing: all was right'}")
    return 0


def write_readme(check: bool) -> list[Path]:
    """Put the table into README, or see whether it is there; the file, if it is another one."""
    before = README.read_text(encoding="utf-8")
    after = insert_table(before, f"\n{headline(RESULTS)}\n\n", BEGIN, END)
    if before != after and not check:
        README.write_text(after, encoding="utf-8")
    return [README] if before != after else []


if __name__ == "__main__":
    sys.exit(main())
