"""``train.channels_last`` of a config."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from dense_kd.checkpoint import load_strictly
from dense_kd.engine import train
from dense_kd.engine.building import build_model
from dense_kd.engine.processes import read_metrics
from helpers.checked_runs import problems
from helpers.tried_runs import distillation, write_teacher

SWITCH = "train.channels_last=True"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pth")


def config(teacher, output, *overrides: str):
    common = ("train.max_iter=2", "train.checkpointer.period=1", "train.log_period=1")
    return distillation(teacher, output, *common, "train.seed=3", *overrides)


def trained(cfg, resume: bool = False):
    """The weights of the model."""
    torch.manual_seed(3)
    np.random.seed(3)  # the order of the images
    train(argparse.Namespace(resume=resume), cfg)
    file = f"{cfg.train.output_dir}/model_final.pth"
    return torch.load(file, weights_only=False)["model"]


def test_the_student_is_arranged_and_the_teacher_is_not(teacher, tmp_path):
    model = build_model(config(teacher, tmp_path, SWITCH))
    kernels = [p for p in model.student.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    order = torch.channels_last
    assert all(kernel.is_contiguous(memory_format=order) for kernel in kernels)
    frozen = [p for p in model.teacher.model.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    assert not any(kernel.is_contiguous(memory_format=order) for kernel in frozen)


def test_a_run_has_the_losses_of_one_without_and_goes_on_where_it_stopped(teacher, tmp_path):
    plain = trained(config(teacher, tmp_path / "plain"))
    arranged = trained(config(teacher, tmp_path / "arranged", SWITCH))
    assert plain.keys() == arranged.keys()
    first, again = (read_metrics(tmp_path / run)[0] for run in ("plain", "arranged"))
    losses = [name for name in first if "loss" in name]
    assert len(losses) > 4
    assert {n: again[n] for n in losses} == pytest.approx({n: first[n] for n in losses}, rel=1e-4)
    (tmp_path / "arranged" / "model_final.pth").unlink()
    (tmp_path / "arranged" / "last_checkpoint").write_text("model_0000000.pth")
    resumed = trained(config(teacher, tmp_path / "arranged", SWITCH), resume=True)
    assert all(torch.equal(value, resumed[name]) for name, value in arranged.items())
    student = instantiate(config(teacher, tmp_path).model.student)
    load_strictly(student, str(tmp_path / "arranged" / "model_final.pth"))


def test_what_is_no_switch_is_refused():
    (problem,) = problems("train.channels_last=NHWC")
    assert problem == "train.channels_last='NHWC': expected true or false"
