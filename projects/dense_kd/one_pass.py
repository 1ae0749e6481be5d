"""Losses over all class logits, whose slope is computed in the pass that computes them.

Autograd would keep several tensors as large as the logits for the backward pass, and compute the
scores once more there.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Terms = Callable[[Tensor, Tensor, Any], "tuple[Tensor, ...]"]
"""Of logits (P, K), labels (P, ...) and an option: the slope of the loss (P, K), the loss (P,), and
what else there is to know of each prediction (P,)."""

_BLOCK = 2**18
"""Elements that a CPU has in its caches at a time, with what is computed of them."""

_state = {"compiled": False}


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, terms: Terms, logits: Tensor, labels: Tensor, option: Any
    ) -> tuple[Tensor, ...]:
        rows = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1, labels.shape[-1])
        run = _by_compiler if _state["compiled"] else _in_blocks
        slope, loss, *others = run(terms, *rows, option)
        if ctx.needs_input_grad[1]:
            ctx.save_for_backward(slope.view(logits.shape))
        others = [other.view(logits.shape[:-1]) for other in others]
        ctx.mark_non_differentiable(*others)
        return (loss.view(logits.shape[:-1]), *others)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[None, Tensor, None, None]:
        [slope] = ctx.saved_tensors
        return None, slope * gradient.unsqueeze(-1), None, None


def one_pass(terms: Terms, logits: Tensor, labels: Tensor, option: Any) -> tuple[Tensor, ...]:
    """A loss of each prediction, whose gradient is ready with it.

    For the backward pass one tensor is kept, as large as the logits.

    Args:
        terms: the formula.
        logits: (..., K), with gradient.
        labels: (..., K), or with another last dimension; without gradient.
        option: of the formula.

    Returns:
        (...), the loss, and, without gradient, (...) each, what else the formula gives.
    """
    return _OnePass.apply(terms, logits, labels.detach(), option)


@contextlib.contextmanager
def compiled_losses(enabled: bool = True) -> Iterator[None]:
    """Within, ``torch.compile`` makes few kernels of a formula, at its first use."""
    before = _state["compiled"]
    _state["compiled"] = enabled
    try:
        yield
    finally:
        _state["compiled"] = before


def _by_compiler(terms: Terms, logits: Tensor, labels: Tensor, option: Any) -> tuple[Tensor, ...]:
    try:
        return _compiled(terms)(logits, labels, option)
    except Exception as error:  # of any compiler
        raise RuntimeError(
            f"torch.compile could not compile {terms.__name__}: {type(error).__name__}: {error}. "
            "Leave out train.compile_losses, or give torch a compiler (C++ on a CPU, Triton on a "
            "GPU)"
        ) from error


@functools.cache
def _compiled(terms: Terms) -> Terms:
    return torch.compile(terms, dynamic=True)


def _in_blocks(terms: Terms, logits: Tensor, labels: Tensor, option: Any) -> tuple[Tensor, ...]:
    size = max(1, _BLOCK // max(1, logits.shape[1]))
    if logits.device.type != "cpu" or len(logits) <= size or torch.jit.is_tracing():
        return terms(logits, labels, option)
    slope, values = torch.empty_like(logits), []
    for x, y, out in zip(logits.split(size), labels.split(size), slope.split(size)):
        of_block, *others = terms(x, y, option)
        out.copy_(of_block)
        values.append(others)
    return (slope, *(torch.cat(each) for each in zip(*values)))
