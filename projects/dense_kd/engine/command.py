"""What ``dense-kd train`` does, in as many processes as it is told."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

from .. import allocation, compat, noise
from .checks import RunError, check_run, load_config
from .checks.config_file import config_path
from .ranks import joined, launch, rank_of_environment
from .run import evaluate, evaluate_teacher, train

logger = logging.getLogger("dense_kd")


def start(args: argparse.Namespace, process: Callable[[argparse.Namespace], Any]) -> None:
    """Run ``process(args)`` in each process that the arguments ask for.

    Args:
        args: of ``dense_kd.cli.train``.
        process: :func:`run_process`, or a function of a module that calls it.

    Raises:
        RunError: something is wrong with the options, the config or its overrides.
        RankError: one of several processes has failed.
        Preempted: the training was told to stop, and can go on.
    """
    rank = rank_of_environment(os.environ)
    processes = args.num_gpus * args.num_machines
    if rank is not None:
        if processes != 1:
            raise RunError(
                [
                    f"--num-gpus {args.num_gpus} --num-machines {args.num_machines}: this is "
                    f"process {rank.rank} of {rank.world_size} already, as RANK and WORLD_SIZE of "
                    "the environment say (torchrun sets them); leave these options out"
                ]
            )
        with joined(rank):
            process(args)
        return
    if processes != 1:  # otherwise each of them would say what is wrong
        load_checked(args, num_processes=processes, per_machine=args.num_gpus)
    launch(
        process, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,)
    )


def run_process(args: argparse.Namespace) -> dict[str, Any]:
    """Train or evaluate, as one of the processes of a run.

    Args:
        args: of ``dense_kd.cli.train``.

    Returns:
        The metrics of the (last) evaluation, {task: metrics}.

    Raises:
        RunError: something is wrong with the options, the config or its overrides.
    """
    noise.silence()  # in each of several processes
    allocation.keep_freed_memory()
    cfg = load_checked(args)
    set_up(cfg, args)
    if args.eval_teacher:
        return evaluate_teacher(cfg)
    if args.eval_only:
        return evaluate(cfg)
    return train(args, cfg, args.progress)


def mode_of(args: argparse.Namespace) -> str:
    """What :func:`check_run` calls it."""
    if args.eval_teacher:
        return "evaluate_teacher"
    return "evaluate" if args.eval_only else "train"


def load_checked(args: argparse.Namespace, **processes: int) -> DictConfig:
    """The config of a command line, checked.

    Args:
        args: of ``dense_kd.cli.train``.
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
    path = config_path(args.config_file)
    with PathManager.open(path) as file:
        logger.info(f"{path}:\n{file.read()}")
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
        yield (
            f"--num-machines {args.num_machines}: expected --dist-url tcp://HOST:PORT with the "
            "address of the first (auto is for one machine)"
        )
