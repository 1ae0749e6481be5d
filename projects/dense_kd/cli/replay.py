"""``dense-kd replay``."""

from __future__ import annotations

import argparse

HELP = "run a training's step again that was not finite, or failed"
EXAMPLES = [
    "dense-kd replay output/run/replay/step_0000041.pth",
    "dense-kd replay step_0000041.pth --config distill.py --teacher teacher.pth --device cpu",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, and what it may lack."""
    option = parser.add_argument
    option("file", metavar="FILE", help="step_*.pth of the folder replay in a run's output_dir")
    option("--config", help="of the run, a file or a name; needed for models of one's own classes")
    option(
        "--teacher", metavar="FILE", help="the teacher's weights, if they are not where they were"
    )
    option("--device", help="cpu or cuda (that of the run)")


def run(args: argparse.Namespace) -> int:
    """Print what comes of the step; 1 if it does not fail as it did."""
    from ..engine.replay.running import replay

    found = replay(args.file, config=args.config, teacher=args.teacher, device=args.device)
    print("\n".join(found.lines))
    return 0 if found.same else 1
