"""``dense-kd study``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "train pairs x methods x seeds so that they can be compared"
EXAMPLES = [
    "dense-kd study quickstart --dry-run  # the cells that are left",
    "dense-kd study quickstart --only 'fcos/*/1' --jobs 2  # one block, two cells at a time",
    "dense-kd study my_study.yaml --results my_results --teacher-gb 10",
    "dense-kd study --cell fcos-bckd-1.json  # train a cell again, and compare",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study, or a cell, and how to run it."""
    option = parser.add_argument
    option("study", nargs="?", metavar="STUDY", help="a YAML file, or a name of configs/study")
    option("--cell", metavar="FILE", type=Path, help="a result: train its cell again, and compare")
    option("--output", type=Path, metavar="DIR", help="of the trainings (output/study/<its name>)")
    option("--results", type=Path, metavar="DIR", help="for a file of each cell (OUTPUT/results)")
    option("--jobs", type=int, metavar="N", help="cells at a time (1)")
    option("--threads", type=int, metavar="N", help="of each; 1, or as many as the cell had")
    option(
        "--teacher-gb",
        type=float,
        metavar="GB",
        help="run the teacher once for all cells of a block, and keep its passes in OUTPUT until "
        "they are done, in this many gigabytes at most (0: run it for each, the default)",
    )
    option(
        "--only",
        action="append",
        default=[],
        metavar="PAIR/METHOD/SEED",
        help="cells, with * for any of one of the three; can be given several times",
    )
    option("--dry-run", action="store_true", help="print what is left, and train nothing")


def run(args: argparse.Namespace) -> int:
    """Train what is left, or a cell again; 1 if that has come out otherwise."""
    from ..engine.processes import say
    from ..engine.stopping import ends_as_preempted
    from ..study import Settings, StudyError, recompute, run_study

    if (args.study is None) == (args.cell is None):
        raise StudyError("give a study, or --cell with the file of a result, and not both")
    if args.cell is not None:
        alone = ("results", "jobs", "teacher_gb", "only", "dry_run")
        given = [
            f"--{name.replace('_', '-')}"
            for name in alone
            if getattr(args, name) not in (None, [], False)
        ]
        if given:
            raise StudyError(
                f"{', '.join(given)}: of a study, and --cell trains one cell, which has --output "
                "and --threads; leave it out"
            )
        output = args.output or Path("output/study/again")
        with ends_as_preempted():
            changed = recompute(args.cell, output, args.threads)
        say(f"{args.cell}: {'other ' + ', '.join(changed) if changed else 'equal in all'}")
        return int(bool(changed))
    settings = Settings(
        output=args.output or Path("output/study") / Path(args.study).stem,
        results=args.results,
        jobs=1 if args.jobs is None else args.jobs,
        threads=1 if args.threads is None else args.threads,
        teacher_gb=args.teacher_gb or 0.0,
        only=args.only,
        dry_run=args.dry_run,
    )
    with ends_as_preempted():
        run_study(args.study, settings)
    return 0
