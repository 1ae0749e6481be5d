"""Runs of the quickstart on the checked data, small enough to be tried in a moment."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from omegaconf import DictConfig

from dense_kd.engine import train

from .checked_runs import load

DISTILL = "quickstart/distill.py"


def write_teacher(path: Path) -> Path:
    """The file of a teacher that was never trained."""
    teacher = instantiate(load(config=DISTILL).model.teacher.model)
    torch.save({"model": teacher.state_dict()}, path)
    return path


def two_iterations(teacher: Path, output: Path, *overrides: str) -> DictConfig:
    """:func:`distillation` that saves and logs each of two iterations."""
    common = ("train.max_iter=2", "train.checkpointer.period=1", "train.log_period=1")
    return distillation(teacher, output, *common, "train.seed=3", *overrides)


def trained(cfg: DictConfig, resume: bool = False) -> dict[str, Any]:
    """The content of the last checkpoint, after a training of that config."""
    torch.manual_seed(3)
    np.random.seed(3)  # the order of the images
    train(argparse.Namespace(resume=resume), cfg)
    return torch.load(f"{cfg.train.output_dir}/model_final.pth", weights_only=False)


def distillation(teacher: Path, output: Path, *overrides: str) -> DictConfig:
    """A student of that teacher, on images of 64 x 64."""
    return load(
        f"model.teacher.weights={teacher}",
        f"train.output_dir={output}",
        "train.max_iter=100",
        "dataloader.train.total_batch_size=4",
        *overrides,
        config=DISTILL,
    )
