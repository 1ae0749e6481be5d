"""Runs of the training script with a teacher's cache."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import pytest

from dense_kd.engine import train
from helpers.checked_runs import register, unregister
from helpers.tried_runs import distillation, write_teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cached")
    register(root)
    yield write_teacher(root / "teacher.pth")
    unregister()


def metrics(teacher: Path, output: Path, *overrides: str, resume: bool = False) -> list[dict]:
    cfg = distillation(
        teacher,
        output,
        "train.device=cpu",
        "train.seed=3",
        "train.log_period=1",
        "train.eval_period=0",
        "train.checkpointer.period=2",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.seed=1",
        *overrides,
    )
    cfg.dataloader.evaluator = None
    train(argparse.Namespace(resume=resume), cfg)
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def losses(lines: list[dict]) -> list[dict]:
    return [
        {k: v for k, v in line.items() if "loss" in k} for line in lines if "total_loss" in line
    ]


def test_a_run_with_a_cache_has_the_losses_of_one_without_and_goes_on_exactly(
    teacher, tmp_path, caplog
):
    iterations = "train.max_iter=6"  # three epochs of four images
    alone = metrics(teacher, tmp_path / "alone", iterations)
    folder = tmp_path / "cache"
    cached = [f"model.teacher.cache={folder}", "model.teacher.cache_gb=0.5"]
    with caplog.at_level(logging.INFO, "dense_kd"):
        found = metrics(teacher, tmp_path / "found", iterations, *cached)
    hits = [line["teacher_cache/hits"] for line in found if "teacher_cache/hits" in line]
    assert hits[0] == 0 and max(hits) > 0
    assert "of 12 images" in caplog.text and str(folder) in caplog.text
    assert len(losses(found)) == 6
    for ours, theirs in zip(losses(found), losses(alone)):
        assert ours == pytest.approx(theirs, rel=1e-5)
    metrics(teacher, tmp_path / "resumed", "train.max_iter=4", *cached)
    resumed = metrics(teacher, tmp_path / "resumed", iterations, *cached, resume=True)
    for ours, theirs in zip(losses(resumed), losses(alone)):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert [line["teacher_cache/hits"] for line in resumed][-1] == 1
