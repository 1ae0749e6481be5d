"""A training that is told to stop finishes its iteration, saves, and ends in all processes."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel

from dense_kd.checkpoint import AtomicCheckpointer
from dense_kd.engine import Trainer
from dense_kd.engine.evaluation_hook import EvaluationHook
from dense_kd.engine.preemption import InterruptibleEvaluator, LeftEvaluation, Preemption
from dense_kd.engine.state.keeping import LatestCheckpoints
from dense_kd.engine.stopping import SIGNALS, Stop
from dense_kd.errors import Preempted
from helpers.toy import Toy, toy_batch, toy_trainer
from helpers.two_processes import launch_two


class Signalled(HookBase):
    """Sends a signal to this process in one iteration."""

    def __init__(self, iteration: int, number: int):
        self.iteration, self.number = iteration, number

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), self.number)


def stopped(trainer: Trainer, stop: Stop, *hooks: HookBase, iterations: int = 5) -> list[int]:
    """The iterations after which it saved."""
    saved: list[int] = []
    save = lambda iteration: saved.append(iteration) or "model.pth"  # noqa: E731
    trainer.register_hooks([*hooks, Preemption(stop, save)])
    with stop, pytest.raises(Preempted, match=r"of 5 iterations done; model\.pth holds them"):
        trainer.train(0, iterations)
    return saved


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("iteration", [0, 2, 4])
def test_the_iteration_is_finished_and_saved(number, iteration):
    trainer = toy_trainer([toy_batch()] * 5)
    assert stopped(trainer, Stop(), Signalled(iteration, number)) == [iteration]
    done = toy_trainer([toy_batch()] * 5)
    done.train(0, iteration + 1)
    for ours, expected in zip(trainer.model.parameters(), done.model.parameters()):
        assert torch.equal(ours, expected)


def test_a_signal_while_a_run_is_loaded_ends_it_before_the_first_iteration():
    trainer = toy_trainer([])
    with Stop() as stop, pytest.raises(Preempted, match="SIGINT before the first iteration"):
        trainer.register_hooks([Preemption(stop, str)])
        os.kill(os.getpid(), signal.SIGINT)
        trainer.train(0, 5)


def test_time_that_is_over_stops_after_the_iteration():
    assert stopped(toy_trainer([toy_batch()] * 5), Stop(1e-9)) == [0]


def test_a_signal_in_the_evaluation_that_comes_first_loses_no_iteration(tmp_path):
    """In a run that was finished, and has more iterations now."""
    finished = toy_trainer([toy_batch()] * 2)
    first = AtomicCheckpointer(finished.model, str(tmp_path), trainer=finished)
    finished.register_hooks([LatestCheckpoints(first, period=100)])
    finished.train(0, 2)

    trainer, stop = toy_trainer([toy_batch()] * 4), Stop()
    checkpointer = AtomicCheckpointer(trainer.model, str(tmp_path), trainer=trainer)
    checkpointer.resume_or_load("")
    latest = LatestCheckpoints(checkpointer, period=100)

    def save(iteration: int) -> str:
        with trainer.saving_all_processes():
            return latest.save_now(iteration)

    preemption = Preemption(stop, save)
    trainer.register_hooks([latest, preemption, EvaluationHook(2, preemption.end, str(tmp_path))])
    with stop, pytest.raises(Preempted, match=r"with 2 of 6 .*model_0000001\.pth holds them"):
        trainer.train(trainer.iter + 1, 6)
    content = torch.load(tmp_path / "model_0000001.pth", weights_only=True)
    assert content["iteration"] == content["trainer"]["iteration"] == 1


class Counts(DatasetEvaluator):
    """Counts batches and evaluations."""

    batches = evaluations = 0

    def process(self, inputs, outputs) -> None:
        self.batches += 1

    def evaluate(self) -> dict:
        self.evaluations += 1
        return {"bbox": {"AP": 1.0}}


def test_an_evaluation_is_left_at_the_next_image():
    counts = Counts()
    with Stop() as stop:
        evaluator = InterruptibleEvaluator(counts, lambda: stop.signalled)
        evaluator.process(None, None)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(LeftEvaluation):
            evaluator.process(None, None)
        with pytest.raises(LeftEvaluation):
            evaluator.evaluate()
    assert (counts.batches, counts.evaluations) == (1, 0)
    evaluator = InterruptibleEvaluator(counts, lambda: False)
    assert evaluator.evaluate() == {"bbox": {"AP": 1.0}}


class Told:
    """Of the kind of :class:`Stop`."""

    signalled, reason = False, ""


def test_time_that_is_over_in_an_evaluation_ends_it_if_the_run_has_trained(tmp_path):
    """A run that began with the evaluation, and left it, would begin with it for ever."""
    trainer, told, asked = toy_trainer([toy_batch()] * 6), Told(), []
    preemption = Preemption(told, lambda iteration: f"model of {iteration}")

    def evaluate() -> dict:
        told.reason = "time"
        asked.append((trainer.done, preemption.leaves_evaluation()))
        if asked[-1][1]:
            preemption.end()
        told.reason = ""
        return {}

    trainer.register_hooks([preemption, EvaluationHook(2, evaluate, str(tmp_path))])
    with pytest.raises(Preempted, match="by time with 4 of 6 iterations done; model of 3 holds"):
        trainer.train(2, 6)
    assert asked == [(2, False), (4, True)]


def two_processes(folder: str) -> None:
    """The second one alone gets a signal, in the second iteration."""
    rank = comm.get_rank()
    model = DistributedDataParallel(Toy())
    trainer = Trainer(model, [toy_batch()] * 5, torch.optim.SGD(model.parameters(), lr=0.1))
    hooks = [Signalled(1, signal.SIGUSR1)] if rank == 1 else []
    stop, counts = Stop(), Counts()
    saved = stopped(trainer, stop, *hooks)
    evaluator = InterruptibleEvaluator(counts, lambda: stop.signalled)
    with contextlib.suppress(LeftEvaluation):
        for _ in range(3):
            evaluator.process(None, None)
        evaluator.evaluate()
    (Path(folder) / str(rank)).write_text(f"{saved} {counts.batches} {counts.evaluations}")
    raise Preempted("as the trainer does")


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_the_same_iteration(tmp_path):
    with pytest.raises(Preempted):
        launch_two(two_processes, tmp_path)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["[1] 3 0", "[1] 0 0"]
