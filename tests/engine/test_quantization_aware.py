"""A run whose student computes as if in 8-bit integers."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from dense_kd.checkpoint import load_strictly
from dense_kd.engine import train
from dense_kd.engine.building import build_training_model
from dense_kd.engine.processes import read_metrics
from dense_kd.engine.replay.recording import described_step
from dense_kd.quantization import FakeQuantization
from helpers.checked_runs import problems
from helpers.tried_runs import distillation, write_teacher

SWITCH = "train.quantization_aware=True"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pth")


def config(teacher, output, *overrides: str):
    common = ("train.max_iter=2", "train.checkpointer.period=1", "train.log_period=1")
    return distillation(teacher, output, *common, "train.seed=3", *overrides)


def trained(cfg, resume: bool = False):
    """The content of the last checkpoint."""
    torch.manual_seed(3)
    np.random.seed(3)  # the order of the images
    train(argparse.Namespace(resume=resume), cfg)
    return torch.load(f"{cfg.train.output_dir}/model_final.pth", weights_only=False)


def test_the_student_alone_is_rounded(teacher, tmp_path):
    model = build_training_model(config(teacher, tmp_path, SWITCH))
    assert isinstance(model.student.fake_quantization, FakeQuantization)
    assert not any(isinstance(m, FakeQuantization) for m in model.teacher.model.modules())
    plain = build_training_model(config(teacher, tmp_path))
    assert not any(isinstance(m, FakeQuantization) for m in plain.modules())


def test_it_trains_saves_the_plain_student_and_goes_on_exactly(teacher, tmp_path):
    plain = trained(config(teacher, tmp_path / "plain"))["model"]
    rounded = trained(config(teacher, tmp_path / "rounded", SWITCH))
    assert plain.keys() == rounded["model"].keys()
    first, again = (read_metrics(tmp_path / run)[0] for run in ("plain", "rounded"))
    losses = [name for name in first if "loss" in name]
    assert {n: again[n] for n in losses} == pytest.approx({n: first[n] for n in losses}, rel=0.2)
    assert any(first[name] != again[name] for name in losses)
    saved = rounded["trainer"]["training_buffers"]
    assert {"fake_quantization.lowest", "fake_quantization.highest"} <= saved.keys()
    (tmp_path / "rounded" / "model_final.pth").unlink()
    (tmp_path / "rounded" / "last_checkpoint").write_text("model_0000000.pth")
    resumed = trained(config(teacher, tmp_path / "rounded", SWITCH), resume=True)
    for name, value in rounded["model"].items():
        assert torch.equal(value, resumed["model"][name]), name
    student = instantiate(config(teacher, tmp_path).model.student)
    load_strictly(student, str(tmp_path / "rounded" / "model_final.pth"))


def test_a_step_that_is_kept_for_a_replay_says_it(teacher, tmp_path):
    assert described_step(config(teacher, tmp_path, SWITCH))["train"]["quantization_aware"] is True


def test_what_is_no_switch_is_refused():
    (problem,) = problems("train.quantization_aware=int8")
    assert "train.quantization_aware" in problem
