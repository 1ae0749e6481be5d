"""Runs of the training script with a teacher's cache."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import pytest
from detectron2.utils.env import seed_all_rng

from dense_kd.engine import train
from helpers.tried_runs import distillation, write_teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("cached") / "teacher.pth")


def run(teacher: Path, output: Path, *overrides: str) -> list[dict]:
    """Metrics of a run of two epochs that is stopped after one and goes on."""
    for iterations in (2, 4):
        cfg = distillation(
            teacher,
            output,
            "train.device=cpu",
            "train.log_period=1",
            "train.eval_period=0",
            "train.checkpointer.period=2",
            f"train.max_iter={iterations}",
            "dataloader.train.total_batch_size=2",
            "dataloader.train.seed=1",
            "dataloader.train.mapper.augmentations=[]",
            *overrides,
        )
        cfg.dataloader.evaluator = None
        seed_all_rng(3)
        train(argparse.Namespace(resume=iterations == 4), cfg)
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def test_a_run_with_a_cache_has_the_losses_of_one_without_and_goes_on_as_it_does(
    teacher, tmp_path, caplog
):
    alone = run(teacher, tmp_path / "alone")
    folder = tmp_path / "cache"
    options = [f"model.teacher.cache={folder}", "model.teacher.cache_gb=0.5"]
    with caplog.at_level(logging.INFO, "dense_kd"):
        found = run(teacher, tmp_path / "found", *options)
    assert len(found) == len(alone) == 4
    for line, expected in zip(found, alone):
        losses = {name: value for name, value in expected.items() if "loss" in name}
        assert {name: line[name] for name in losses} == pytest.approx(losses, rel=1e-4)
    assert [line["teacher_cache/hits"] for line in found] == [0, 0, 1, 1]
    assert f"({folder}) had 4 of 4 images (100.0 %); it holds 4 entries" in caplog.text
