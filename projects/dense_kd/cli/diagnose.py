"""``dense-kd diagnose``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import add_config, take_names, titled
from .progress import image_counter

HELP = "measure teachers and labels against each other"
EXAMPLES = [
    "dense-kd diagnose quickstart/distill --images 2",
    "dense-kd diagnose quickstart/distill --what conflicts,masking --json d.json --plot d.png",
    "dense-kd diagnose crosskd/gfl_r101_r50_1x --teacher ATSS=atss/r101_1x  # CrossKD's Figure 3",
    "dense-kd diagnose quickstart/distill --what distances --run PKD=output/quickstart/pkd",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A config, what is measured, and where to write it."""
    add_config(parser)
    option = parser.add_argument
    option(
        "--what",
        default="conflicts",
        metavar="NAMES",
        help="conflicts of the teacher with the labels (CrossKD, Figure 3), masking of its best "
        "predictions (PGD, Figure 3), distances at the evaluations of the config's run (CrossKD, "
        "Figure 6); with commas between them (%(default)s)",
    )
    option("--images", type=int, metavar="N", help="only the first N of the test set")
    option(
        "--teacher",
        action="append",
        default=[],
        metavar="TITLE=CONFIG_OR_CHECKPOINT",
        help="another teacher, beside the config's own; may be given several times",
    )
    option(
        "--run",
        action="append",
        default=[],
        metavar="TITLE=FOLDER",
        help="another run whose distances are shown, beside the config's own; may be given several "
        "times",
    )
    option("--json", metavar="FILE", help="write all numbers, too")
    option("--plot", metavar="FILE", help="draw the curves: .png, .svg or .pdf")
    parser.epilog = (
        "A checkpoint has to describe its detector, as those of runs of this package do; of a\n"
        "config it is the last of its own run, or what is published. Distances are there after a\n"
        f"training with train.diagnostics.images=N.\n\n{parser.epilog}"
    )


def run(args: argparse.Namespace) -> None:
    """Print tables, and write the files that are asked for."""
    from ..diagnostics.errors import DiagnosticsError
    from ..engine.diagnosing import diagnose
    from ..json_files import check_json, write_json
    from ..visualize.diagnostics import save_diagnostics
    from ..visualize.panels import check_picture

    take_names(args, "config_file")
    check_json(args.json, "conflicts", "masking", "distances")
    if args.plot:
        check_picture(args.plot)
    content = diagnose(
        args.config_file,
        args.opts,
        what=[name.strip() for name in args.what.split(",")],
        teachers=titled("--teacher", args.teacher, "TITLE=CONFIG_OR_CHECKPOINT", DiagnosticsError),
        runs=titled("--run", args.run, "TITLE=FOLDER", DiagnosticsError),
        num_images=args.images,
        progress=image_counter(),
    )
    print(as_text(content))
    if args.json:
        write_json(Path(args.json), content)
    if args.plot:
        save_diagnostics(args.plot, content)


def as_text(content: dict[str, Any]) -> str:
    """A table for each part of what :func:`dense_kd.engine.diagnosing.diagnose` found."""
    tables = []
    if "conflicts" in content:
        teachers = content["conflicts"]
        rows = zip(
            next(iter(teachers.values()))["thresholds"],
            *(each["ratios"] for each in teachers.values()),
        )
        tables.append(_table(["conflicts per positive above", *teachers], rows, ".2f"))
    if "masking" in content:
        teachers = content["masking"]
        rows = zip(
            next(iter(teachers.values()))["masked"], *(each["ap"] for each in teachers.values())
        )
        tables.append(_table(["AP without the best, %", *teachers], rows, ".1f"))
    if "distances" in content:
        for title, run in content["distances"].items():
            rows = zip(run["iteration"], run["teacher"], run["truth"], run["ap"])
            header = [f"{title}: iteration", "distance to teacher", "to labels", "AP"]
            tables.append(_table(header, rows, ".4g"))
    return "\n\n".join(tables)


def _table(header: list[str], rows: Any, style: str) -> str:
    from tabulate import tabulate

    body = [
        [f"{first:g}", *("-" if value is None else format(value, style) for value in others)]
        for first, *others in rows
    ]
    return tabulate(body, header, disable_numparse=True, colalign=["right"] * len(header))
