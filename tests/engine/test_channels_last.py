"""``train.channels_last`` of a config."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import instantiate

from dense_kd.checkpoint import load_strictly
from dense_kd.engine.building import build_model
from dense_kd.engine.processes import read_metrics
from helpers.checked_runs import problems
from helpers.tried_runs import trained, two_iterations, write_teacher

SWITCH = "train.channels_last=True"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pth")


def test_the_student_is_arranged_and_the_teacher_is_not(teacher, tmp_path):
    model = build_model(two_iterations(teacher, tmp_path, SWITCH))
    kernels = [p for p in model.student.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    order = torch.channels_last
    assert all(kernel.is_contiguous(memory_format=order) for kernel in kernels)
    frozen = [p for p in model.teacher.model.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    assert not any(kernel.is_contiguous(memory_format=order) for kernel in frozen)


def test_a_run_has_the_losses_of_one_without_and_goes_on_where_it_stopped(teacher, tmp_path):
    plain = trained(two_iterations(teacher, tmp_path / "plain"))["model"]
    arranged = trained(two_iterations(teacher, tmp_path / "arranged", SWITCH))["model"]
    assert plain.keys() == arranged.keys()
    first, again = (read_metrics(tmp_path / run)[0] for run in ("plain", "arranged"))
    losses = [name for name in first if "loss" in name]
    assert len(losses) > 4
    assert {n: again[n] for n in losses} == pytest.approx({n: first[n] for n in losses}, rel=1e-4)
    (tmp_path / "arranged" / "model_final.pth").unlink()
    (tmp_path / "arranged" / "last_checkpoint").write_text("model_0000000.pth")
    resumed = trained(two_iterations(teacher, tmp_path / "arranged", SWITCH), resume=True)["model"]
    assert all(torch.equal(value, resumed[name]) for name, value in arranged.items())
    student = instantiate(two_iterations(teacher, tmp_path).model.student)
    load_strictly(student, str(tmp_path / "arranged" / "model_final.pth"))


def test_what_is_no_switch_is_refused():
    (problem,) = problems("train.channels_last=NHWC")
    assert problem == "train.channels_last='NHWC': expected true or false"
