"""``train.diagnostics`` of a config."""

from __future__ import annotations

import argparse
import json
import logging

import numpy as np
import pytest
import torch

from dense_kd.engine import train
from dense_kd.engine.diagnosing import distances_of_run
from helpers.checked_runs import problems
from helpers.tried_runs import DISTILL, distillation, write_teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pth")


def trained(teacher, output, *overrides: str):
    """The results, and the lines of metrics.json."""
    common = ["train.max_iter=2", "train.eval_period=1", "train.log_period=1"]
    cfg = distillation(teacher, output, *common, *overrides)
    torch.manual_seed(3)
    np.random.seed(3)  # the order of the images
    results = train(argparse.Namespace(resume=False), cfg)
    return results, [json.loads(line) for line in (output / "metrics.json").open()]


def test_a_run_writes_what_it_measures_and_has_the_weights_of_one_without(
    teacher, tmp_path, caplog
):
    trained(teacher, tmp_path / "first")  # the scripted focal loss rounds otherwise
    plain, lines = trained(teacher, tmp_path / "plain")
    assert "diag" not in plain and not any(n.startswith("diag/") for row in lines for n in row)
    with caplog.at_level(logging.INFO, "dense_kd"):
        options = ("train.diagnostics.period=2", "train.diagnostics.images=2")
        results, lines = trained(teacher, tmp_path / "measured", *options)
    named = [{n for n in row if n.startswith("diag/")} for row in lines]
    distances = {"diag/distance_teacher", "diag/distance_truth"}
    assert named[0] == distances  # the first evaluation; the second iteration; the last evaluation
    assert {"diag/share_bckd", "diag/share_detection", "diag/agreement_p3"} < named[1] - distances
    assert named[2] == distances and set(results["diag"]) == {x[5:] for x in distances}
    assert caplog.text.count("Mean L1 distance of the student's class scores: ") == 2
    found = distances_of_run(str(tmp_path / "measured"))
    assert found["iteration"] == [0, 2] and found["truth"][1] == results["diag"]["distance_truth"]
    states = [
        torch.load(tmp_path / run / "model_final.pth", weights_only=False)["model"]
        for run in ("plain", "measured")
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_period_of_0_is_right_for_a_model_without_a_teacher():
    assert problems("train.diagnostics.period=0") == []


def test_distances_without_an_evaluator_are_refused(teacher):
    found = problems(
        "train.diagnostics.images=5", "dataloader.evaluator=null",
        f"model.teacher.weights={teacher}", config=DISTILL,
    )  # fmt: skip
    assert len(found) == 1 and "there is no dataloader.evaluator; leave it at 0" in found[0]
