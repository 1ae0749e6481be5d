"""One of two processes fails where the other waits for it: both end, with the name of the cause."""

from __future__ import annotations

import os
import signal
import time
from unittest import mock

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch.nn.parallel import DistributedDataParallel

from dense_kd.engine import RankError, Trainer
from dense_kd.engine.ranks import watching
from helpers.toy import Toy, toy_batch
from helpers.two_processes import launch_two

pytestmark = pytest.mark.slow


def fail(how: str) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise KeyError("the reason")


class Fails(HookBase):
    """Fails after an iteration; other processes wait for this one at the end of the training."""

    def __init__(self, how: str, rank: int):
        self.how, self.rank = how, rank

    def after_step(self) -> None:
        if self.trainer.iter == 1 and comm.get_rank() == self.rank:
            fail(self.how)

    def after_train(self) -> None:
        if self.trainer.iter == self.trainer.max_iter:
            comm.synchronize()


class BadBatch(list):
    """A batch that makes the model fail."""

    def __getitem__(self, index):
        fail("raises")


def train(rank: int, how: str, place: str) -> None:
    """Three iterations, of which the second one fails in one process."""
    ours = comm.get_rank() == rank
    bad = BadBatch(toy_batch(name="culprit")) if ours and place == "step" else toy_batch()
    model = DistributedDataParallel(Toy())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, [toy_batch(), bad, toy_batch()], optimizer)
    if place != "step":
        trainer.register_hooks([Fails(how, rank)])
    with mock.patch.object(watching, "GRACE", 1.0):
        trainer.train(0, 2 if place == "last iteration" else 3)


CASES = {
    f"rank {rank}, {how} in {place}": (rank, how, place)
    for rank, how, place in (
        (0, "raises", "a hook"),
        (1, "raises", "step"),
        (1, "raises", "last iteration"),
        (0, "killed", "a hook"),
        (1, "killed", "last iteration"),
    )
}


def case(output: str) -> None:
    with open(f"{output}/case") as file:
        train(*CASES[file.read()])


@pytest.mark.parametrize("name", CASES)
def test_all_end_and_the_cause_is_named(tmp_path, name, capfd):
    rank, how, place = CASES[name]
    (tmp_path / "case").write_text(name)
    start = time.monotonic()
    with pytest.raises(RankError) as error:
        launch_two(case, tmp_path)
    assert time.monotonic() - start < 15  # far below the time limit of an exchange
    message = str(error.value)
    assert message.startswith(f"process {rank} of 2 ")
    assert ("ended by SIGKILL" if how == "killed" else "KeyError: 'the reason'") in message
    assert f"process {1 - rank}" not in message
    if place == "step":
        assert "in iteration 1" in message and "culprit.jpg" in message


def other_thread(output: str) -> None:
    """The first process waits where no error comes; the watch ends it."""
    watching.GRACE = 0.2
    if comm.get_rank() == 1:
        fail("raises")
    time.sleep(60)


def test_a_process_that_waits_for_something_else_is_ended(tmp_path):
    start = time.monotonic()
    with pytest.raises(RankError, match="process 1 of 2 failed: (?s:.*)KeyError"):
        launch_two(other_thread, tmp_path)
    assert time.monotonic() - start < 15
