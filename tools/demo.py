#!/usr/bin/env python
"""Distil a small detector on generated images, compare it with its baseline, and report.

Trainings that were finished with the same settings before are used again; --fresh repeats them.
Those in the output folder with other settings are removed, and trained again.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path

import torch

# Works in a checkout that is not installed, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "projects"))

from dense_kd.demo import Options, run_demo
from dense_kd.engine.processes import TrainingError
from dense_kd.engine.stopping import ends_as_preempted

TRAIN_SCRIPT = Path(__file__).resolve().with_name("lazyconfig_train_net.py")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1, help="train both students so many times")
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder")
    parser.add_argument(
        "--data", type=Path, help="folder of datasets; None: $DETECTRON2_DATASETS or datasets"
    )
    parser.add_argument("--train-images", type=int, default=2000, help="number of them")
    parser.add_argument("--val-images", type=int, default=500, help="number of them")
    parser.add_argument("--teacher-iters", type=int, help="iterations; None: as in its config")
    parser.add_argument("--student-iters", type=int, help="iterations; None: as in its config")
    parser.add_argument(
        "--precision", help="float32 or bfloat16; None: the faster one on this machine"
    )
    parser.add_argument("--fresh", action="store_true", help="train everything again")
    return parser


def main() -> int:
    args = get_parser().parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("dense_kd.data").setLevel(logging.INFO)
    torch.set_num_threads(1)  # the work of this process is small, that of its trainings is not
    warnings.filterwarnings("ignore", message="torch.meshgrid")  # detectron2's
    try:
        with ends_as_preempted():
            run_demo(Options(script=TRAIN_SCRIPT, **vars(args)))
    except TrainingError as error:
        print(f"The demo failed: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
