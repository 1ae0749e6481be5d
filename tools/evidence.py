#!/usr/bin/env python
"""Write docs/evidence/results.md and its figures from benchmarks/results/study.

With --check nothing is written, and it ends with 1 if a file is another one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dense_kd.errors import DenseKDError
from dense_kd.study.evidence import write_evidence

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "study"
PAGES = ROOT / "docs" / "evidence"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    args = parser.parse_args(argv)
    try:
        others = write_evidence(RESULTS, PAGES, args.check)
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


if __name__ == "__main__":
    sys.exit(main())
