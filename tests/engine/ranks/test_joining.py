"""Processes that train together without a GPU."""

from __future__ import annotations

import argparse
import types
import weakref

import pytest
import torch
from detectron2.utils import comm

from dense_kd.engine import RunError
from dense_kd.engine.command import start
from dense_kd.engine.ranks import Rank, joined, rank_of_environment
from dense_kd.engine.ranks.launching import free_port


def test_no_group_outlives_the_work_of_a_process():
    """Its threads would, too, and abort the process at its end."""
    held: list[weakref.ref] = []

    def main() -> None:
        assert comm.all_gather("something") == ["something"]
        model = types.SimpleNamespace(group=comm._LOCAL_PROCESS_GROUP)
        model.itself = model  # as a model with hooks, which nothing but the collector frees
        held.append(weakref.ref(model.group))
        held.append(weakref.ref(torch.distributed.group.WORLD))
        assert all(group() is not None for group in held)

    threads = torch.get_num_threads()
    with joined(Rank(0, 0, 1, 1, f"tcp://127.0.0.1:{free_port()}")):
        main()
    torch.set_num_threads(threads)
    assert len(held) == 2 and all(group() is None for group in held)
    assert comm.get_world_size() == 1 and comm.get_local_rank() == 0


FIRST = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
WHERE = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}


def test_the_variables_of_torchrun_say_which_process_this_is():
    found = rank_of_environment({**FIRST, **WHERE, "LOCAL_WORLD_SIZE": "2"})
    assert found == Rank(1, 1, 4, 2, "env://")
    assert rank_of_environment({**FIRST, **WHERE}) == Rank(1, 1, 4, None, "env://")


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", **WHERE},  # one process is all
        {"RANK": "0", "WORLD_SIZE": "2", **WHERE},  # of machines, as some clusters have it
    ],
)
def test_without_them_a_process_is_alone(variables):
    assert rank_of_environment(variables) is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (FIRST, "expected MASTER_ADDR and MASTER_PORT, too"),
        ({**FIRST, **WHERE, "RANK": "4"}, "whole numbers with"),
        ({**FIRST, **WHERE, "LOCAL_RANK": "two"}, "LOCAL_RANK=two"),
        ({**FIRST, **WHERE, "LOCAL_WORLD_SIZE": "1"}, "LOCAL_WORLD_SIZE=1"),
    ],
)
def test_variables_that_do_not_go_together_are_refused(variables, expected):
    with pytest.raises(RunError, match=expected):
        rank_of_environment(variables)


def test_processes_that_are_started_already_start_no_others(monkeypatch):
    for name, value in {**FIRST, **WHERE}.items():
        monkeypatch.setenv(name, value)
    args = argparse.Namespace(num_gpus=4, num_machines=1)
    with pytest.raises(RunError, match="this is process 1 of 4 already.*leave these options out"):
        start(args, print)
