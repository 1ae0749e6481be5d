"""``dense-kd train``."""

from __future__ import annotations

import argparse

from .arguments import add_config, add_processes, take_names

HELP = "train, distil or evaluate what a config describes"
EXAMPLES = [
    "dense-kd train quickstart/student.py  # a baseline, on generated images",
    "dense-kd train quickstart/distill train.max_iter=500 model.methods.bckd.loc_weight=2",
    "dense-kd train quickstart/distill --resume --progress lines  # goes on where it stopped",
    "dense-kd train quickstart/distill --eval-teacher  # is it the right one?",
    "dense-kd train bckd/gfl_r101_r50_1x --num-gpus 8",
    "dense-kd train quickstart/student --num-gpus 2  # two processes, for want of GPUs on the CPU",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of ``tools/lazyconfig_train_net.py``."""
    add_config(parser)
    option = parser.add_argument
    option("--resume", action="store_true", help="go on from the last checkpoint in output_dir")
    option("--eval-only", action="store_true", help="evaluate train.init_checkpoint")
    option("--eval-teacher", action="store_true", help="evaluate the teacher of the config")
    option(
        "--progress",
        choices=("auto", "bar", "lines"),
        default="auto",
        help="a bar with losses, AP and time left, or lines; auto: a bar if stderr is a terminal",
    )
    add_processes(parser)


def run(args: argparse.Namespace) -> None:
    """Train or evaluate, in as many processes as wanted."""
    from ..engine import command

    take_names(args, "config_file")
    command.start(args, command.run_process)
