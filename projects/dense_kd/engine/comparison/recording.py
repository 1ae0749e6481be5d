"""The losses of the first iterations of a run, term by term.

As a script it is run with the ``dense_kd`` of any commit on the path, older ones than this file
too, so of that package it uses only what all of them have: ``dense_kd.engine.train``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from typing import Any

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import HookBase, TrainerBase
from detectron2.utils.env import seed_all_rng
from omegaconf import DictConfig

TOTAL = "total_loss"


class _Enough(Exception):
    """All iterations that were asked for are done."""


class _Recorder(HookBase):
    def __init__(self, iterations: int):
        self.iterations = iterations
        self.losses: list[dict[str, float]] = []

    def before_step(self) -> None:
        # Here and not after a step: writers cannot write twice in one iteration.
        if len(self.losses) >= self.iterations:
            raise _Enough

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        losses = {
            name: value
            for name, (value, iteration) in latest.items()
            if iteration == self.trainer.iter and name.startswith(("loss_", "kd_"))
        }
        # detectron2 leaves the total out where there is a single term.
        total = latest[TOTAL][0] if TOTAL in latest else sum(losses.values())
        self.losses.append({**losses, TOTAL: total})


def record(cfg: DictConfig, iterations: int, *, resume: bool = False) -> list[dict[str, float]]:
    """Train as the script does, and stop early.

    The schedule stays that of ``train.max_iter``, and nothing is evaluated.

    Args:
        cfg: of a run; a seed below 0 counts as 0, so that a run can be repeated.
        iterations: how many to do; fewer where ``train.max_iter`` ends the run.
        resume: go on where the run of ``train.output_dir`` stopped.

    Returns:
        for each iteration {term: loss}, the sum of all as :data:`TOTAL`.
    """
    from dense_kd import engine  # of the commit that is asked

    cfg.train.eval_period = 0
    for part in ("evaluator", "test"):
        cfg.dataloader.pop(part, None)
    recorder = _Recorder(iterations)
    train = TrainerBase.train

    def train_recorded(trainer: TrainerBase, start_iter: int, max_iter: int) -> None:
        trainer.register_hooks([recorder])
        train(trainer, start_iter, max_iter)

    _seed(cfg)
    TrainerBase.train = train_recorded  # no commit's own function takes further hooks
    try:
        engine.train(argparse.Namespace(resume=resume), cfg)
    except _Enough:
        pass
    finally:
        TrainerBase.train = train
    return recorder.losses


def _seed(cfg: DictConfig) -> None:
    cfg.train.seed = max(cfg.train.get("seed", -1), 0)
    seed_all_rng(cfg.train.seed)


def use_random_teacher(cfg: DictConfig) -> None:
    """Give what teaches in a distillation, a detector and the networks of methods, weights that
    were never trained, from files in ``train.output_dir``."""
    methods = (cfg.model.get("methods") or {}).values()
    held = [each.get("teacher") for each in (cfg.model, *methods) if isinstance(each, DictConfig)]
    teachers = [each for each in held if isinstance(each, DictConfig) and "weights" in each]
    if not teachers:
        return
    _seed(cfg)
    for number, teacher in enumerate(teachers):
        path = os.path.join(cfg.train.output_dir, f"random_teacher_{number}.pth")
        torch.save({"model": instantiate(teacher.model).state_dict()}, path)
        teacher.weights = path


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """{"losses": of :func:`record`}, or {"error": why there are none}.

    Args:
        request: ``package``, the folder that dense_kd must come from; ``config``, a file;
            ``overrides`` of it; ``output_dir``; ``random_teacher``; ``iterations``.
    """
    try:
        import dense_kd

        found = os.path.dirname(os.path.realpath(dense_kd.__file__))
        if found != os.path.realpath(request["package"]):
            return {"error": f"dense_kd comes from {found}, expected {request['package']}"}
        torch.use_deterministic_algorithms(True, warn_only=True)
        cfg = LazyConfig.load(request["config"])
        cfg = LazyConfig.apply_overrides(cfg, request["overrides"])
        cfg.train.output_dir = request["output_dir"]
        os.makedirs(cfg.train.output_dir)
        if request["random_teacher"]:
            use_random_teacher(cfg)
        return {"losses": record(cfg, request["iterations"])}
    except Exception as error:  # of any commit
        explains_itself = type(error).__module__.startswith("dense_kd.")
        return {"error": str(error) if explains_itself else traceback.format_exc(limit=-4)}


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose modules are no top-level ones
    with open(sys.argv[1]) as file:
        asked = json.load(file)
    found = answer(asked)
    with open(sys.argv[2], "w") as file:
        json.dump(found, file)
