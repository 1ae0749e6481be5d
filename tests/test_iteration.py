"""The iteration of a training pass: of the trainer, or counted in any other loop, and saved."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn
from torch.optim import SGD, AdamW

from dense_kd import BCKD, FGFI, FRS, Distiller, MethodSet, Teacher
from dense_kd.checkpoint import AtomicCheckpointer
from dense_kd.iteration import IterationCounter
from dense_kd.methods import KDMethod
from helpers.builders import batch, tiny_fcos
from helpers.torch_features import has_fused_adamw


class Iterations(KDMethod):
    """Gives the iteration that it is told."""

    def forward(self, student, teacher, step):
        zero = 0 * student.logits[0].sum()
        return {"loss_iteration": zero + float(step.iteration)}

    def warmup_factor(self, iteration: int) -> float:
        return 1.0


def distill(method: KDMethod | None = None) -> Distiller:
    methods = MethodSet(m=Iterations(warmup_iters=1) if method is None else method)
    return Distiller(
        student=tiny_fcos(), teacher=Teacher(tiny_fcos(seed=1), None), methods=methods
    ).train()


def iteration(model: nn.Module) -> int:
    return round(model(batch())["kd_m_loss_iteration"].item())


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batches: int = 1) -> list[int]:
    """One step of a plain loop; the iterations of its batches."""
    optimizer.zero_grad()
    told = []
    for _ in range(batches):
        losses = model(batch())
        told.append(round(losses["kd_m_loss_iteration"].item()))
        sum(losses.values()).backward()
    optimizer.step()
    return told


OPTIMIZERS = {
    "SGD": lambda p: SGD(p, lr=1e-4),
    "SGD of rate 0": lambda p: SGD(p, lr=0.0),
    "momentum, foreach": lambda p: SGD(p, lr=1e-4, momentum=0.9, foreach=True),
    "AdamW": lambda p: AdamW(p, lr=1e-5),
    "AdamW, fused": lambda p: AdamW(p, lr=1e-5, fused=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_loop_without_a_trainer_counts_its_steps(name):
    if "fused" in name and not has_fused_adamw():
        pytest.skip("this version of torch has no fused AdamW on the CPU")
    model = distill()
    optimizer = OPTIMIZERS[name](model.parameters())
    assert [step(model, optimizer) for _ in range(4)] == [[0], [1], [2], [3]]


def test_accumulated_batches_are_one_iteration():
    model = distill()
    optimizer = SGD(model.parameters(), lr=1e-4)
    assert [step(model, optimizer, batches=3) for _ in range(3)] == [[i] * 3 for i in range(3)]


def test_what_is_no_step_counts_nothing():
    model = distill()
    optimizer = SGD(model.parameters(), lr=1e-4)
    step(model, optimizer)
    model.eval()(batch())
    assert step(model.train(), optimizer) == [1]
    with torch.no_grad():
        assert iteration(model) == iteration(model) == 2
    assert step(model, optimizer) == [2]


@pytest.mark.parametrize(
    "method, warm",
    [
        (lambda: FGFI(warmup_iters=3), [0.0, 0.0, 0.0, 1.0, 1.0]),
        (lambda: FRS(warmup_iters=3), [1 / 3, 2 / 3, 1.0, 1.0, 1.0]),
        (lambda: BCKD(warmup_iters=3), [1 / 3, 2 / 3, 1.0, 1.0, 1.0]),
    ],
)
def test_a_warm_up_ends_in_a_plain_loop(method, warm):
    model = distill(method())
    optimizer = SGD(model.parameters(), lr=0.0)
    model.student.loss_normalizer_momentum = 1.0
    values = []
    for _ in warm:
        losses = {k: v for k, v in model(batch()).items() if k.startswith("kd_")}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        values.append(sum(losses.values()).item())
    assert values == pytest.approx([factor * values[-1] for factor in warm], rel=1e-4)


def test_a_trainers_iteration_is_the_iteration():
    model = distill()
    optimizer = SGD(model.parameters(), lr=1e-4)
    step(model, optimizer)
    with EventStorage(70) as storage:
        assert step(model, optimizer, batches=2) == [70, 70]
        storage.step()
        assert step(model, optimizer) == [71]
    assert step(model, optimizer) == [72]


@pytest.mark.parametrize("trainer", [False, True])
def test_a_run_goes_on_with_the_iteration_after_the_saved_one(trainer):
    model = distill()
    assert model.state_dict()["kd.iteration"] == 0
    optimizer = SGD(model.parameters(), lr=1e-4)
    if trainer:
        with EventStorage(4):
            step(model, optimizer)
    else:
        for _ in range(5):
            step(model, optimizer)
    saved = copy.deepcopy(model.state_dict())
    assert saved["kd.iteration"] == 5
    resumed = distill()
    assert str(resumed.load_state_dict(saved)) == "<All keys matched successfully>"
    assert resumed.state_dict()["kd.iteration"] == 5
    optimizer = SGD(resumed.parameters(), lr=1e-4)
    assert [step(resumed, optimizer) for _ in range(2)] == [[5], [6]]


def test_a_checkpoint_amid_accumulated_batches_begins_the_iteration_anew():
    model = distill()
    step(model, SGD(model.parameters(), lr=1e-4))
    sum(model(batch()).values()).backward()
    assert model.state_dict()["kd.iteration"] == 1


def test_older_checkpoints_and_those_of_another_warm_up_load_strictly(tmp_path):
    warm, cold = distill(BCKD(warmup_iters=2)), distill(BCKD())
    state = warm.state_dict()
    assert set(cold.state_dict()) == set(state) - {"kd.iteration"}
    assert str(warm.load_state_dict(cold.state_dict())) == "<All keys matched successfully>"
    assert str(cold.load_state_dict(state)) == "<All keys matched successfully>"
    for saved, resumed in ((warm, cold), (cold, warm)):
        AtomicCheckpointer(saved, str(tmp_path)).save("model")
        AtomicCheckpointer(resumed, str(tmp_path)).resume_or_load("", resume=True)
    outer = nn.Sequential(distill())
    assert str(outer.load_state_dict(outer.state_dict())) == "<All keys matched successfully>"


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_counts_on_from_where_it_was_made(twin):
    model = distill()
    optimizer = SGD(model.parameters(), lr=1e-4)
    for _ in range(3):
        step(model, optimizer)
    other = twin(model)
    assert iteration(other) == 3
    assert step(model, optimizer) == [3]


def test_steps_that_cannot_be_seen_are_warned_of(caplog):
    parameters = [nn.Parameter(torch.zeros(2))]
    counter = IterationCounter()
    caplog.set_level(logging.WARNING, "dense_kd.iteration")
    for _ in range(500):
        counter.advance(parameters)
        parameters[0].data.add_(1.0)
    assert caplog.text.count("No parameter has changed over 200 training passes") == 1
    assert "EventStorage" in caplog.text
