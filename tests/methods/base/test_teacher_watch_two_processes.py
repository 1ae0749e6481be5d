"""A teacher that is not finite in one of two processes stops both, whatever loop trains them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from dense_kd import PKD, Distiller, FromTeacher, GIBox, MethodSet, Teacher
from dense_kd.engine import Trainer
from helpers.builders import batch, tiny_fcos
from helpers.two_processes import ranks_of, run_in_two_processes

pytestmark = pytest.mark.slow


def plain_loop(model: DistributedDataParallel) -> None:
    for _ in range(2):
        sum(model(batch()).values()).backward()


def accumulating_loop(model: DistributedDataParallel) -> None:
    with model.no_sync():
        sum(model(batch()).values()).backward()
    sum(model(batch()).values()).backward()


def loop_that_measures_first(model: DistributedDataParallel) -> None:
    for _ in range(2):
        with torch.no_grad():
            model(batch())
    sum(model(batch()).values()).backward()


def loop_that_leaves_out(model: DistributedDataParallel) -> None:
    teacher = model.module.teacher.model.head.cls_score.bias
    model(batch())  # is not finite, so a loop may leave out its backward pass
    with torch.no_grad():
        teacher.nan_to_num_()
    sum(model(batch()).values()).backward()


def trained_by(kind: type[SimpleTrainer], **options: Any) -> Callable[[nn.Module], None]:
    def train(model: nn.Module) -> None:
        kind(model, [batch()] * 4, SGD(model.parameters(), lr=1.0), **options).train(0, 2)

    return train


LOOPS = {
    "plain": plain_loop,
    "accumulating": accumulating_loop,
    "SimpleTrainer": trained_by(SimpleTrainer),
    "Trainer": trained_by(Trainer),
    "measuring": loop_that_measures_first,
    "leaving out": loop_that_leaves_out,
    "leaving out by Trainer": trained_by(Trainer, skip_bad_steps=2),
    "normalizing": trained_by(Trainer, accumulate=2, normalize="iteration"),
}
TWO = ("plain", "Trainer", "normalizing")
"""Those that are also tried with a second teacher, which is finite."""


def worker(folder: str) -> None:
    for name, loop in LOOPS.items():
        for broken in (None, 1):
            teacher = Teacher(tiny_fcos(seed=1), None)
            methods = {"gibox": GIBox()}
            if name in TWO:
                second = Teacher(tiny_fcos(seed=2), None)
                methods["second"] = FromTeacher(teacher=second, method=PKD())
            model = Distiller(student=tiny_fcos(), teacher=teacher, methods=MethodSet(**methods))
            if comm.get_rank() == broken:
                with torch.no_grad():
                    teacher.model.head.cls_score.bias.fill_(float("nan"))
            found = {"error": "", "before": {k: v.clone() for k, v in model.state_dict().items()}}
            try:
                loop(create_ddp_model(model, device_ids=None))
            except FloatingPointError as error:
                found["error"] = str(error)
            found["after"] = model.state_dict()
            case = "finite" if broken is None else "broken"
            torch.save(found, Path(folder) / f"{name}_{case}_{comm.get_rank()}.pth")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return run_in_two_processes(worker, tmp_path_factory)


@pytest.mark.parametrize("name", LOOPS)
def test_both_processes_stop_before_the_step_and_name_the_teacher(outputs, name):
    for found in ranks_of(outputs, name, "broken"):
        assert found["error"].startswith("process 1: the teacher's pass over a batch is not finite")
        assert "in its class logits" in found["error"] and "process 0" not in found["error"]
        assert all(torch.equal(x, found["after"][key]) for key, x in found["before"].items())


@pytest.mark.parametrize("name", LOOPS)
def test_a_finite_teacher_stops_neither(outputs, name):
    assert [found["error"] for found in ranks_of(outputs, name, "finite")] == ["", ""]
