"""Gradients of networks against stored ones, on any processor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from helpers.builders import assert_close

Nudge = Callable[[Tensor], Tensor]
SIZE, DRAWS = 1e-6, 16


def assert_gradients_close(
    compute: Callable[[Nudge], Mapping[str, Tensor]],
    expected: Mapping[str, Tensor],
    tolerance: float,
) -> None:
    """Assert that gradients are the expected ones, or as near as rounding lets them be.

    A ReLU whose input is next to zero is open on one processor and closed on another, and a
    norm over few values multiplies the rounding of what it is given. So where gradients are not
    equal within ``tolerance``, each element has to be between those of inputs nudged by a
    millionth, within the same tolerance.

    Args:
        compute: gives gradients by name. It applies what it is given to all of its inputs.
        expected: those to compare, by name.
        tolerance: relative to the largest element of each.
    """
    lowest: dict[str, Tensor] = {}
    highest: dict[str, Tensor] = {}
    assert expected, "nothing to compare"
    for nudge in _nudges():
        found = compute(nudge)
        for name in expected:
            gradient = found[name].detach()
            lowest[name] = torch.minimum(lowest.get(name, gradient), gradient)
            highest[name] = torch.maximum(highest.get(name, gradient), gradient)
        try:
            for name, reference in expected.items():
                nearest = reference.clamp(lowest[name], highest[name])
                assert_close(nearest, reference, tolerance, name)
            return
        except AssertionError as off:
            error = off
    raise AssertionError(f"{error}, and it is not between those of {DRAWS} nudged inputs")


def _nudges() -> Iterator[Nudge]:
    """None, then random ones, each different for each tensor."""
    yield lambda x: x
    for seed in range(DRAWS):
        yield functools.partial(_nudge, torch.Generator().manual_seed(seed))


def _nudge(draw: torch.Generator, x: Tensor) -> Tensor:
    return x * (1 + SIZE * torch.randn(x.shape, generator=draw))
