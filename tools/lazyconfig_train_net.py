#!/usr/bin/env python
"""Train or evaluate a detector or a distillation that a LazyConfig describes."""

import argparse
import sys
from typing import Any

from dense_kd import DistillationError, engine
from dense_kd.checkpoint import CheckpointError
from dense_kd.data import DatasetError
from dense_kd.engine.command import get_parser, load_checked, parse_args, set_up


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Do what the arguments say; returns the metrics of the (last) evaluation."""
    cfg = load_checked(args)
    set_up(cfg, args)
    if args.eval_teacher:
        return engine.evaluate_teacher(cfg)
    if args.eval_only:
        return engine.evaluate(cfg)
    return engine.train(args, cfg)


if __name__ == "__main__":
    args = parse_args(get_parser(__doc__))
    try:
        processes = args.num_gpus * args.num_machines
        if processes != 1:  # otherwise each of them would say what is wrong
            load_checked(args, num_processes=processes, per_machine=args.num_gpus)
        engine.launch(
            main, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,)
        )
    except (engine.RunError, CheckpointError, DatasetError, DistillationError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
