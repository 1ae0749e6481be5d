"""Damaged and hostile files of every kind that is read: ``make fuzz``, or ``python -m fuzz`` here.

Each case damages a checkpoint, the annotations or an image of a dataset, a config or a run's folder
in a way of its own, and reads it. It must end in an error of the project's own kind that names the
file, in a repair that is told, or in what was there; in no other error, no code that is run, no 20
seconds and no gigabyte. The files of a case that does not are kept, and the same seed makes it
again.

What is promised of content that is changed: each part of a .pth of torch since 1.6 has a checksum,
so any change of its bytes is found. Older ones and .pkl have none, nor have annotations and configs
(and Pillow looks at few of those in images): other numbers where numbers may stand are read as
what they are now.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.kinds import KINDS  # noqa: E402
from fuzz.outcomes import OUTCOMES, Result  # noqa: E402
from fuzz.running import run_cases  # noqa: E402

ROOT = Path(__file__).parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of kinds and outcomes, and every violation; 1 if there is one."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--cases", type=int, default=2000, help="default: %(default)s")
    option("--seed", type=int, default=1, help="default: %(default)s")
    option("--only", type=int, nargs="*", metavar="INDEX", help="these cases of the seed")
    option("--kinds", nargs="*", choices=sorted(KINDS), metavar="KIND", help=", ".join(KINDS))
    option("--keep", type=Path, default=ROOT / "output" / "fuzz", help="default: %(default)s")
    option("--trace", action="store_true", help="print where other errors come from")
    option("--mutations", action="store_true", help="count what was done to the files, too")
    args = parser.parse_args(argv)
    kinds = {name: kind for name, kind in KINDS.items() if name in (args.kinds or KINDS)}
    indices = args.only if args.only is not None else range(args.cases)
    results = []
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        cases = run_cases(
            kinds, args.seed, indices, Path(folder), args.keep.absolute(), trace=args.trace
        )
        for result in cases:
            results.append(result)
            if result.violated:
                print(f"case {result.index} ({result.kind}, {result.mutation}): {result.outcome}")
                sys.stdout.flush()
    print(table(results, args.mutations))
    violated = sum(result.violated for result in results)
    print(f"seed {args.seed}: {len(results)} cases, {violated} violations")
    if violated:
        print(f"Their files are in {args.keep}; --seed {args.seed} --only INDEX makes one again")
    return int(violated > 0)


def table(results: Sequence[Result], mutations: bool = False) -> str:
    """Kinds in rows, outcomes in columns."""
    from tabulate import tabulate

    rows = []
    header = ("kind", *OUTCOMES, "violations", "slowest")
    for kind in dict.fromkeys((r.kind, r.mutation if mutations else "") for r in results):
        of_kind = [r for r in results if (r.kind, r.mutation if mutations else "") == kind]
        counts = Counter("violations" if r.violated else r.outcome for r in of_kind)
        slowest = f"{max(r.seconds for r in of_kind):.1f} s"
        name = ", ".join(filter(None, kind))
        rows.append([name, *(counts[outcome] for outcome in header[1:-1]), slowest])
    return tabulate(sorted(rows), header)


if __name__ == "__main__":
    sys.exit(main())
