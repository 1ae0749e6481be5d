"""Runs what both processes of a test do, and reads what each has saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dense_kd.engine import launch


def run_in_two_processes(
    worker: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder, given to ``worker`` in both, where rank r has saved ``<name>_<case>_<r>.pth``."""
    output = tmp_path_factory.mktemp("two_processes")
    launch(worker, 2, dist_url="auto", args=(str(output),))
    return output


def ranks_of(outputs: Path, name: str, case: str) -> list[dict]:
    """What each rank has saved."""
    return [torch.load(outputs / f"{name}_{case}_{r}.pth", weights_only=True) for r in range(2)]
