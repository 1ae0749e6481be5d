"""Runs what both processes of a test do, and reads what each has saved."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch

from dense_kd.engine import launch
from dense_kd.engine.ranks import launching


def run_in_two_processes(
    worker: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder, given to ``worker`` in both, where rank r has saved ``<name>_<case>_<r>.pth``."""
    output = tmp_path_factory.mktemp("two_processes")
    launch_two(worker, output)
    return output


def launch_two(worker: Callable[[str], None], output: Path) -> None:
    """``worker(output)`` in two processes that the package launches."""
    with forks():
        launch(worker, 2, dist_url="auto", args=(str(output),))


@contextlib.contextmanager
def forks() -> Iterator[None]:
    """What is launched here is forked, which has imported all already.

    In a fork, the threads that this process has started are missing: OpenMP uses one there, and
    what waits for those of hotcoco would wait for ever, so boxes are evaluated without it.
    """
    if torch.cuda.is_available():  # which a fork cannot use
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        forking = mock.patch.object(launching, "START_METHOD", "fork")
        with forking, mock.patch.dict(sys.modules, {"hotcoco": None}):
            yield
    finally:
        torch.set_num_threads(threads)


def ranks_of(outputs: Path, name: str, case: str) -> list[dict]:
    """What each rank has saved."""
    # They are files of this test; to read them as if they were not takes ten times as long.
    return [torch.load(outputs / f"{name}_{case}_{r}.pth", weights_only=False) for r in range(2)]
