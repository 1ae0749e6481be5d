"""``dense-kd check``."""

from __future__ import annotations

import argparse

from .arguments import add_config, take_names

HELP = "try a run on a few images, and say what does not fit"
EXAMPLES = [
    "dense-kd check quickstart/distill",
    "dense-kd check quickstart/student train.max_iter=2000 dataloader.train.total_batch_size=8",
    "dense-kd check quickstart/distill --batch-size 2 --images 2 --steps 1  # sooner",
    "dense-kd check quickstart/distill --json",
    "dense-kd check bckd/gfl_r101_r50_1x --num-gpus 8  # one of 8 processes, with its 2 images",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A config, and how much of it is tried."""
    add_config(parser)
    option = parser.add_argument
    option("--images", type=_count, default=8, help="of the test set, for teacher and evaluation")
    option("--steps", type=_count, default=3, help="iterations that are timed, after a first one")
    option("--num-gpus", type=_count, default=1, help="of the run; one of its processes is tried")
    option("--batch-size", type=_count, help="images of the tried batches, if not of a process")
    option("--json", action="store_true", help="print all that was found as JSON")


def run(args: argparse.Namespace) -> int:
    """Print what a dry run finds; 1 if anything does not fit."""
    import json

    from ..engine import load_config
    from ..engine.dry_run import dry_run

    take_names(args, "config_file")
    found = dry_run(
        load_config(args.config_file, args.opts),
        num_images=args.images,
        num_steps=args.steps,
        num_processes=args.num_gpus,
        batch_size=args.batch_size,
    )
    print(json.dumps(found.to_dict(), indent=2) if args.json else found.text())
    return 0 if found.fits else 1


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return int(text)
