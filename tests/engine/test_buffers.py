"""Buffers that are kept get their values back, whoever writes to them and whenever."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from detectron2.layers import NaiveSyncBatchNorm
from torch import nn

from dense_kd.engine.buffers import KeptBuffers
from helpers.script_runs import assert_equal


class Written(nn.Module):
    """A buffer that is written to by ``write``."""

    def __init__(self, write: Callable[[nn.Module], None]):
        super().__init__()
        self.register_buffer("values", torch.ones(2))
        self.write = write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.write(self)
        return x


def add(module: nn.Module) -> None:
    module.values += 1


def replace(module: nn.Module) -> None:
    module.values = module.values + 1


MODULES = {
    "batch norm": lambda: nn.BatchNorm2d(2),
    "batch norm, mean of all": lambda: nn.BatchNorm2d(2, momentum=None),
    "synchronised batch norm": lambda: NaiveSyncBatchNorm(2),
    "instance norm": lambda: nn.InstanceNorm2d(2, track_running_stats=True),
    "added to": lambda: Written(add),
    "replaced": lambda: Written(replace),
}


@pytest.fixture(params=list(MODULES))
def model(request) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 2, 1), MODULES[request.param]()).train()


def buffers_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_what_a_step_changed_is_restored(model, steps):
    images = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    kept = KeptBuffers(model)
    for _ in range(steps):
        model(images)
        kept.keep()
    before = buffers_of(model)
    assert_equal(kept.named(), before)
    for _ in range(2):  # restored twice from one copy
        model(images * float("nan") if steps else images + 1)
        changed = buffers_of(model)
        assert any(not torch.equal(changed[name], before[name]) for name in before)
        kept.restore()
        assert_equal(buffers_of(model), before)


def test_what_has_not_changed_is_not_copied(monkeypatch):
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2).eval())
    kept, copied = KeptBuffers(model), []
    monkeypatch.setattr("dense_kd.compat.copy_all", lambda to, of: copied.append(len(to)))
    model(torch.randn(2, 2, 4, 4))
    kept.keep()
    kept.keep()
    assert copied == [3, 0]
