#!/usr/bin/env python
"""Train or evaluate a detector or a distillation that a LazyConfig describes.

The arguments are those of detectron2's script of this name, plus --eval-teacher:

    python tools/lazyconfig_train_net.py --config-file configs/quickstart/distill.py \
        model.teacher.weights=output/teacher/model_final.pth model.methods.bckd.loc_weight=2
"""

import argparse
from typing import Any

from detectron2.config import LazyConfig
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from dense_kd import engine


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Do what the arguments say; returns the metrics of the (last) evaluation."""
    cfg = LazyConfig.load(args.config_file)
    cfg = LazyConfig.apply_overrides(cfg, args.opts)
    default_setup(cfg, args)
    setup_logger(cfg.train.output_dir, comm.get_rank(), name="dense_kd")
    if args.eval_teacher:
        return engine.evaluate_teacher(cfg)
    if args.eval_only:
        return engine.evaluate(cfg)
    return engine.train(args, cfg)


if __name__ == "__main__":
    parser = default_argument_parser()
    parser.add_argument(
        "--eval-teacher", action="store_true", help="evaluate the teacher of the config only"
    )
    args = parser.parse_args()
    engine.launch(
        main, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,)
    )
