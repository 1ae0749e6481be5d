"""Runs of the quickstart on the checked data, small enough to be tried in a moment."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig

from .checked_runs import load

DISTILL = "quickstart/distill.py"


def write_teacher(path: Path) -> Path:
    """The file of a teacher that was never trained."""
    teacher = instantiate(load(config=DISTILL).model.teacher.model)
    torch.save({"model": teacher.state_dict()}, path)
    return path


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
