#!/usr/bin/env python
"""Train two commits, or two configs, for a few iterations and print their losses side by side.

For refactorings: with --equal it ends with 1 as soon as a number is not the same, bit for bit.
"""

from __future__ import annotations

import argparse
import functools
import signal
import sys
from pathlib import Path

# Works in a checkout that is not installed, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "projects"))

from dense_kd.engine.comparison import DEFAULT_CONFIGS, ComparisonError, compare

ROOT = Path(__file__).resolve().parents[1]

_EXAMPLES = """\
Examples:

  has what is not committed changed a number?
    %(prog)s HEAD . --equal
  two commits, with a config whose teacher is not trained yet:
    %(prog)s HEAD~30 HEAD --config-file configs/quickstart/pgd.py --random-teachers
  two configs, on the CPU:
    %(prog)s configs/quickstart/student.py configs/quickstart/gfl.py train.device=cpu

The datasets of the configs have to be there (tools/make_shapes.py makes that of quickstart).
It ends with 2 if something cannot be compared.
"""


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("a", metavar="A", help="a commit, . for the files as they are, or a config")
    option("b", metavar="B", help="another of the same kind")
    option(
        "--config-file",
        action="append",
        default=[],
        metavar="CONFIG",
        dest="configs",
        help="what two commits train, may be given again; by default, as far as both have them, "
        f"{', '.join(DEFAULT_CONFIGS)}, with random teachers",
    )
    option("--random-teachers", action="store_true", help="do without the files of teachers")
    option("--iterations", type=int, default=10, metavar="N", help="of each; default: %(default)s")
    option("--equal", action="store_true", help="end with 1 at the first config that differs")
    option("overrides", nargs="*", metavar="path.key=value", help="overrides of all configs")
    return parser


def main(argv: list[str] | None = None, repository: Path = ROOT) -> int:
    """Do what the arguments say, with the commits of ``repository``; returns the exit code."""
    args = get_parser().parse_intermixed_args(argv)
    try:
        equal = compare(
            args.a,
            args.b,
            repository=repository,
            configs=args.configs,
            overrides=args.overrides,
            iterations=args.iterations,
            random_teachers=args.random_teachers,
            until_different=args.equal,
            say=functools.partial(print, flush=True),
        )
    except ComparisonError as error:
        print(f"compare_losses: {error}", file=sys.stderr)
        return 2
    return 1 if args.equal and not equal else 0


if __name__ == "__main__":
    # A killed comparison removes its worktrees, as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
