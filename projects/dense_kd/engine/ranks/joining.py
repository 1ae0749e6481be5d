"""A process becomes one of several that train together."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.utils import comm

from ... import compat
from ...errors import Preempted
from ..checks.errors import RunError
from .watching import Watch

__all__ = ["Rank", "joined", "rank_of_environment"]

TIMEOUT = datetime.timedelta(minutes=30)  # as detectron2's
_ONE = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_WHERE = ("MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Rank:
    """The place of a process among those of a run.

    Attributes:
        rank: among all, from 0.
        local: among those of its machine, from 0.
        world_size: number of all.
        per_machine: number of those of each machine; None: as many as have its host's name.
        address: where they meet, as ``torch.distributed.init_process_group`` takes it.
    """

    rank: int
    local: int
    world_size: int
    per_machine: int | None
    address: str


def rank_of_environment(variables: Mapping[str, str]) -> Rank | None:
    """The place that torchrun, or a script for a scheduler, has given to this process.

    Args:
        variables: of the environment; RANK, WORLD_SIZE and LOCAL_RANK say that there is one.

    Returns:
        None if there is none, or one process is all there are.

    Raises:
        RunError: some of the variables are missing, or are no numbers that go together.
    """
    if not all(variables.get(name) for name in _ONE) or variables["WORLD_SIZE"] == "1":
        return None
    given = ", ".join(f"{name}={variables.get(name, '')}" for name in (*_ONE, *_WHERE))
    missing = [name for name in _WHERE if not variables.get(name)]
    if missing:
        raise RunError(
            [
                f"the environment ({given}) says that this is one of several processes; expected "
                f"{' and '.join(missing)}, too, of the machine of rank 0, as torchrun sets them"
            ]
        )
    per_machine = variables.get("LOCAL_WORLD_SIZE")
    try:
        rank, world_size, local = (int(variables[name]) for name in _ONE)
        count = int(per_machine) if per_machine else None
        if not (0 <= local <= rank < world_size and (count is None or local < count)):
            raise ValueError
    except ValueError as error:
        raise RunError(
            [
                f"the environment ({given}, LOCAL_WORLD_SIZE={per_machine or ''}): expected whole "
                "numbers with 0 <= LOCAL_RANK <= RANK < WORLD_SIZE and LOCAL_RANK < "
                "LOCAL_WORLD_SIZE, as torchrun sets them"
            ]
        ) from error
    return Rank(rank, local, world_size, count, "env://")


@contextlib.contextmanager
def joined(rank: Rank, end: Callable[[str], Any] | None = None) -> Iterator[None]:
    """While it is entered, this process and the others of ``rank`` are one group.

    They exchange by NCCL, where each takes the GPU of its local rank, or without GPUs by gloo, and
    end with one another, see :class:`.watching.Watch`.

    Args:
        rank: of this process.
        end: as of the watch.

    Raises:
        RankError: another process has failed, so that this one could not go on.
        RunError: there is no GPU for it.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        if rank.local >= torch.cuda.device_count():
            raise RunError(
                [
                    f"process {rank.rank} takes the GPU of its local rank, {rank.local}, and sees "
                    f"{torch.cuda.device_count()} of them: start at most one process for each, and "
                    "let each see all of its machine (SLURM's --gpus-per-node, not --gpus-per-task)"
                ]
            )
        torch.cuda.set_device(rank.local)
    torch.distributed.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=rank.address,
        world_size=rank.world_size,
        rank=rank.rank,
        timeout=TIMEOUT,
    )
    failed = True
    try:
        per_machine = rank.per_machine or _same_host(rank.world_size)
        if not cuda:  # otherwise every process would take all the cores
            torch.set_num_threads(max(1, torch.get_num_threads() // per_machine))
        compat.make_local_group(per_machine)
        comm.synchronize()
        with Watch("127.0.0.1" if per_machine == rank.world_size else _host(rank.address), end):
            yield
        failed = False
    except Preempted:
        failed = False  # all leave together
        raise
    finally:
        compat.forget_groups()
        if not (failed and cuda):  # NCCL would wait for who is gone
            torch.distributed.destroy_process_group()


def _host(address: str) -> str:
    """Of the first process."""
    return urllib.parse.urlsplit(address).hostname or os.environ.get("MASTER_ADDR", "")


def _same_host(world_size: int) -> int:
    hosts: list[str | None] = [None] * world_size
    torch.distributed.all_gather_object(hosts, socket.gethostname())
    return hosts.count(socket.gethostname())
