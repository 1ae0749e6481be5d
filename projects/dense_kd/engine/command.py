"""The command line of ``tools/lazyconfig_train_net.py``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence

import torch
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

from .. import compat
from .checks import RunError, check_run, load_config

logger = logging.getLogger("dense_kd")

_EXAMPLES = """\
Overrides are path.key=value, before or after the options. Examples:

  distil, on the CPU if there is no GPU:
    %(prog)s --config-file configs/quickstart/distill.py
    %(prog)s --config-file configs/bckd/gfl_r101_r50_1x.py train.device=cpu
  on 8 GPUs, from another teacher and with another weight:
    %(prog)s --config-file configs/bckd/gfl_r101_r50_1x.py --num-gpus 8 \\
        model.teacher.weights=output/teacher.pth model.methods.bckd.loc_weight=2
  go on where a run stopped:
    %(prog)s --config-file configs/quickstart/distill.py --resume
  evaluate the teacher before, and the student after training:
    %(prog)s --config-file configs/quickstart/distill.py --eval-teacher
    %(prog)s --config-file configs/quickstart/distill.py --eval-only \\
        train.init_checkpoint=output/quickstart/bckd/model_final.pth
  on two machines, on each of them with its --machine-rank:
    %(prog)s --config-file CONFIG --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url URL
"""


def get_parser(description: str | None = None) -> argparse.ArgumentParser:
    """The options of detectron2's script, and --eval-teacher; see :func:`parse_args`."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--config-file", default="", metavar="CONFIG", help="a LazyConfig")
    option("--resume", action="store_true", help="go on from the last checkpoint in output_dir")
    option("--eval-only", action="store_true", help="evaluate train.init_checkpoint")
    option("--eval-teacher", action="store_true", help="evaluate the teacher of the config")
    option("--num-gpus", type=int, default=1, help="of each machine; processes without a GPU")
    option("--num-machines", type=int, default=1, help="number of machines")
    option("--machine-rank", type=int, default=0, help="of this machine, from 0")
    option(
        "--dist-url",
        default=default_argument_parser().get_default("dist_url"),
        help="where the processes meet; auto takes a free port of one machine",
    )
    option("opts", nargs="*", metavar="path.key=value", help="overrides of the config")
    return parser


def parse_args(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Overrides may stand anywhere: an option after them is an option, too."""
    return parser.parse_intermixed_args(argv)


def mode_of(args: argparse.Namespace) -> str:
    """What :func:`check_run` calls it."""
    if args.eval_teacher:
        return "evaluate_teacher"
    return "evaluate" if args.eval_only else "train"


def load_checked(args: argparse.Namespace, **processes: int) -> DictConfig:
    """The config of a command line, checked.

    Args:
        args: of :func:`parse_args`.
        processes: as of :func:`check_run`, before they are started.

    Raises:
        RunError: something is wrong with the options, the config or its overrides.
    """
    problems = [*_problems(args)]
    if problems:
        raise RunError(problems)
    cfg = load_config(args.config_file, args.opts or ())
    check_run(cfg, mode_of(args), resume=args.resume, **processes)
    return cfg


def set_up(cfg: DictConfig, args: argparse.Namespace) -> None:
    """Logs, seed and cuDNN as detectron2's ``default_setup`` sets them.

    That one also writes ``config.yaml``, over the one of the run that is evaluated or resumed in
    vain; here, :func:`.run.train` does so.
    """
    folder, rank = cfg.train.get("output_dir"), comm.get_rank()
    if folder and comm.is_main_process():
        PathManager.mkdirs(folder)
    for name in ("fvcore", "detectron2", "dense_kd"):
        setup_logger(folder, rank, name=name)
    logger.info(f"Process {rank} of {comm.get_world_size()}\n{compat.environment_report()}")
    logger.info(f"Command line: {args}")
    with PathManager.open(args.config_file) as file:
        logger.info(f"{args.config_file}:\n{file.read()}")
    seed = cfg.train.get("seed", -1)
    seed_all_rng(None if seed < 0 else seed + rank)
    if mode_of(args) == "train":
        torch.backends.cudnn.benchmark = cfg.train.get("cudnn_benchmark", False)


def _problems(args: argparse.Namespace) -> Iterator[str]:
    if args.eval_only and args.eval_teacher:
        yield "--eval-only evaluates the student and --eval-teacher the teacher; give one of them"
    if args.resume and (args.eval_only or args.eval_teacher):
        yield (
            "--resume is for training; --eval-only evaluates the file that "
            "train.init_checkpoint names, as output/model_final.pth"
        )
    if args.num_gpus < 1:
        yield f"--num-gpus {args.num_gpus}: expected 1 or more; without a GPU, processes on the CPU"
    if args.num_machines < 1:
        yield f"--num-machines {args.num_machines}: expected 1 or more"
    elif not 0 <= args.machine_rank < args.num_machines:
        yield (
            f"--machine-rank {args.machine_rank}: expected 0 to {args.num_machines - 1}, for "
            f"--num-machines {args.num_machines}"
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        yield "--dist-url auto is for one machine; give the address of the first, tcp://HOST:PORT"
