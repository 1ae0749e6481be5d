"""``train.diagnostics`` of a config."""

from __future__ import annotations

import argparse
import json

from dense_kd.engine import train
from helpers.checked_runs import problems
from helpers.tried_runs import distillation, write_teacher


def test_a_run_writes_what_it_measures_where_tensorboard_and_metrics_find_it(tmp_path):
    teacher = write_teacher(tmp_path / "teacher.pth")
    overrides = ["train.max_iter=2", "train.diagnostics.period=2", "train.log_period=1",
                 "dataloader.evaluator=null", "dataloader.test=null"]  # fmt: skip
    cfg = distillation(teacher, tmp_path / "out", *overrides)
    train(argparse.Namespace(resume=False), cfg)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").open()]
    first, second = ({n for n in line if n.startswith("diag/")} for line in lines)
    assert first == set()
    assert {"diag/share_bckd", "diag/share_detection", "diag/agreement_p3", "diag/seconds"} < second
    assert 0 < lines[1]["diag/share_bckd"] < 1


def test_a_period_of_0_is_right_for_a_model_without_a_teacher():
    assert problems("train.diagnostics.period=0") == []
