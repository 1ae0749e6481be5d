"""``dense-kd eval``."""

from __future__ import annotations

import argparse

from .arguments import add_config, add_processes, take_names

HELP = "evaluate a detector, or the teacher of a distillation"
EXAMPLES = [
    "dense-kd eval quickstart/student  # the last checkpoint of its own run",
    "dense-kd eval quickstart/distill output/quickstart/bckd/model_final.pth",
    "dense-kd eval quickstart/distill --teacher",
    "dense-kd eval gfl/r101_2x_ms --num-gpus 8  # the weights that are published for it",
    "dense-kd eval quickstart/student --errors --json metrics.json",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A config, weights and overrides."""
    add_config(parser, metavar="CONFIG [WEIGHTS] path.key=value")
    parser.add_argument(
        "--teacher", action="store_true", help="of a distillation, and not the student"
    )
    parser.add_argument(
        "--errors",
        action="store_true",
        help="also which errors it makes, and how far its scores can be trusted; on datasets that "
        "COCOEvaluator evaluates",
    )
    parser.add_argument("--json", metavar="FILE", help="write all numbers, too")
    add_processes(parser)
    parser.epilog = (
        "Without WEIGHTS, the last checkpoint of the config's own run is evaluated, or else what\n"
        f"is published for it, and with --teacher the teacher's.\n\n{parser.epilog}"
    )


def run(args: argparse.Namespace) -> None:
    """Evaluate, print tables of the metrics, and write the file that is asked for."""
    from ..engine import evaluating

    args.weights = None
    take_names(args, "config_file", "weights")
    args.eval_teacher, args.eval_only, args.resume = args.teacher, not args.teacher, False
    evaluating.start(args)
