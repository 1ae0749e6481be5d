"""Processes that train together without a GPU."""

from __future__ import annotations

import types
import weakref

import torch
from detectron2.utils import comm

from dense_kd.engine.ranks import Rank, joined
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
