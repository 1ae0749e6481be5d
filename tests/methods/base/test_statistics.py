"""Deviations and means of channels, as CrossKD and PKD take them."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dense_kd.methods.base.statistics import channel_statistics, standardized
from helpers.method_cases import build, every_method, images_with

SHAPES = [(1, 8, 60, 80), (3, 4, 7, 9), (2, 5, 1, 1), (1, 4, 1, 1)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
CELLS = (0, 2, 3)

aten = torch.ops.aten
SLOW = {aten.std, aten.var, aten.std_mean, aten.var_mean}
"""On a CPU they go through the numbers one by one."""


class Slow(TorchDispatchMode):
    """Keeps the names of slow operators that see a map, (N, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in SLOW and args[0].dim() == 4:
            self.seen.add(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_they_are_those_of_torch(shape: tuple[int, ...], layout: torch.memory_format):
    generator = torch.Generator().manual_seed(0)
    feature = (
        torch.randn(shape, generator=generator).mul(3).add(20).contiguous(memory_format=layout)
    )
    correction = min(1, feature[:, 0].numel() - 1)
    exact = torch.std_mean(feature.double(), dim=CELLS, correction=correction, keepdim=True)
    for found, expected in zip(channel_statistics(feature), exact):
        torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_constant_channel_has_its_value_as_mean_and_does_not_deviate(
    shape: tuple[int, ...], layout: torch.memory_format
):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1, shape[1], 1, 1, generator=generator) * 7
    feature = values.expand(shape).contiguous(memory_format=layout)
    std, mean = channel_statistics(feature)
    assert std.tolist() == torch.zeros_like(values).tolist()
    assert mean.tolist() == values.tolist()
    assert standardized([feature])[0].abs().max() == 0


def test_a_map_is_left_as_it_was():
    feature = torch.arange(24.0).view(1, 2, 3, 4)
    before = feature.clone()
    channel_statistics(feature)
    assert feature.equal(before)


@every_method
def test_no_step_takes_deviations_of_maps_number_by_number(name: str, variant: str):
    model = build(name, variant)
    with Slow() as slow:
        losses = model(images_with([[4.0, 6.0, 40.0, 50.0], [30.0, 20.0, 60.0, 62.0]]))
        sum(losses.values()).backward()
    assert slow.seen == set()


def test_such_an_operator_would_be_seen():
    with Slow() as slow:
        torch.std_mean(torch.ones(1, 2, 3, 4), dim=CELLS)
        torch.ones(3, 4).std()
    assert slow.seen == {"aten.std_mean.correction"}
