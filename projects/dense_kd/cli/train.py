"""``dense-kd train``."""

from __future__ import annotations

import argparse

HELP = "train, distil or evaluate what a config describes"
EXAMPLES = [
    "dense-kd train quickstart/student.py  # a baseline, on generated images",
    "dense-kd train quickstart/distill train.max_iter=500 model.methods.bckd.loc_weight=2",
    "dense-kd train quickstart/distill --resume  # goes on where it stopped",
    "dense-kd train quickstart/distill --eval-teacher  # is it the right one?",
    "dense-kd train bckd/gfl_r101_r50_1x --num-gpus 8",
    "dense-kd train my_config.py train.device=cpu --num-gpus 2  # two processes without a GPU",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of ``tools/lazyconfig_train_net.py``; :func:`take_config` finds the config."""
    add_config(parser)
    option = parser.add_argument
    option("--resume", action="store_true", help="go on from the last checkpoint in output_dir")
    option("--eval-only", action="store_true", help="evaluate train.init_checkpoint")
    option("--eval-teacher", action="store_true", help="evaluate the teacher of the config")
    add_processes(parser)


def add_config(parser: argparse.ArgumentParser) -> None:
    """A config and its overrides, which :func:`take_config` tells apart."""
    parser.add_argument(
        "opts",
        nargs="*",
        metavar="CONFIG path.key=value",
        help="a config of the package by its name (`dense-kd list configs`) or a file, and what "
        "to override in it",
    )
    parser.add_argument(
        "--config-file", default="", metavar="CONFIG", help="the config, if not given by itself"
    )


def add_processes(parser: argparse.ArgumentParser) -> None:
    """How many processes there are, and where they meet."""
    option = parser.add_argument
    option("--num-gpus", type=int, default=1, help="of each machine; processes without a GPU")
    option("--num-machines", type=int, default=1, help="number of machines")
    option("--machine-rank", type=int, default=0, help="of this machine, from 0")
    option(
        "--dist-url",
        default="auto",
        help="where the processes of several machines meet, tcp://HOST:PORT of the first; auto: a "
        "free port of this one",
    )


def take_config(args: argparse.Namespace) -> None:
    """Make the first of ``args.opts`` that is no override the config, unless that is given."""
    if not args.config_file:
        names = [word for word in args.opts if "=" not in word]
        if names:
            args.config_file = names[0]
            args.opts.remove(names[0])


def run(args: argparse.Namespace) -> None:
    """Train or evaluate, in as many processes as wanted."""
    take_config(args)

    from ..engine import command

    command.start(args, command.run_process)
