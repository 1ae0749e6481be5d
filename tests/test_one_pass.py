"""Losses over all logits: value and slope in one pass."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dense_kd import one_pass
from dense_kd.losses import (
    _focal_terms,
    binary_divergence,
    modulated_binary_cross_entropy,
    quality_focal_loss,
)

SHAPE = (2, 7, 5)
LOSSES = {
    "quality focal": lambda s, t: quality_focal_loss(s, t.sigmoid(), 2.0),
    "quality focal, root": lambda s, t: quality_focal_loss(s, t.sigmoid(), 0.5),
    "modulated": lambda s, t: modulated_binary_cross_entropy(s, t, 1.0)[0],
    "divergence": binary_divergence,
    "focal": lambda s, t: one_pass.one_pass(
        _focal_terms, s, t[..., :2].argmax(dim=-1, keepdim=True), (0.25, 1.5)
    )[0],
}
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture
def logits():
    torch.manual_seed(0)
    ours, theirs = (3 * torch.randn(SHAPE, dtype=torch.float64) for _ in range(2))
    return ours.requires_grad_(), theirs


def by_autograd(logits: Tensor, target: Tensor, beta: float) -> Tensor:
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((target - logits.sigmoid()).abs() ** beta * entropy).sum(dim=-1)


@EVERY_LOSS
def test_the_slope_is_that_of_the_loss(logits, loss):
    assert torch.autograd.gradcheck(lambda x: loss(x, logits[1]), logits[:1])


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_loss_and_gradient_are_those_that_autograd_finds(logits, beta: float):
    ours, theirs = logits
    weights = torch.rand(SHAPE[:2], dtype=torch.float64)
    expected = by_autograd(ours, theirs.sigmoid(), beta)
    [slope] = torch.autograd.grad((weights * expected).sum(), ours)
    for found in (
        quality_focal_loss(ours, theirs.sigmoid(), beta),
        modulated_binary_cross_entropy(ours, theirs, beta)[0],
    ):
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad((weights * found).sum(), ours)[0], slope)


def test_the_largest_difference_of_scores_comes_without_gradient(logits):
    ours, theirs = logits
    _, largest = modulated_binary_cross_entropy(ours, theirs, 1.0)
    assert largest.equal((ours.sigmoid() - theirs.sigmoid()).abs().amax(dim=-1))
    assert not largest.requires_grad


@EVERY_LOSS
def test_blocks_of_a_cpu_change_nothing(logits, loss, monkeypatch):
    whole = loss(*logits)
    [slope] = torch.autograd.grad(whole.sum(), logits[0])
    monkeypatch.setattr(one_pass, "_BLOCK", 3 * SHAPE[-1])
    blocks = loss(*logits)
    torch.testing.assert_close(blocks, whole, rtol=1e-14, atol=0)
    [found] = torch.autograd.grad(blocks.sum(), logits[0])
    torch.testing.assert_close(found, slope, rtol=1e-14, atol=0)


@EVERY_LOSS
def test_one_tensor_as_large_as_the_logits_is_kept_for_the_gradient(logits, loss):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        loss(*logits)
    assert [tensor.shape for tensor in kept] == [SHAPE]


def test_nothing_is_kept_where_no_gradient_is_asked_for(logits):
    with torch.no_grad():
        loss, _ = modulated_binary_cross_entropy(*logits, 1.0)
    assert not loss.requires_grad


@EVERY_LOSS
def test_no_predictions_have_no_loss_and_keep_the_graph(loss):
    empty = torch.zeros(2, 0, 5, requires_grad=True)
    found = loss(empty, torch.zeros(2, 0, 5))
    assert found.shape == (2, 0)
    found.sum().backward()
    assert empty.grad.shape == empty.shape


@pytest.fixture
def compiled(monkeypatch):
    """The formulas that are compiled, by a compiler that every machine has."""
    seen = []
    compiler = torch.compile

    def without_a_compiler(terms, **options):
        seen.append((terms.__name__, options))
        return compiler(terms, backend="eager", **options)

    one_pass._compiled.cache_clear()
    monkeypatch.setattr(torch, "compile", without_a_compiler)
    yield seen
    one_pass._compiled.cache_clear()


def test_losses_are_compiled_once_for_all_sizes_where_it_is_asked_for(logits, compiled):
    ours, theirs = logits
    expected, _ = modulated_binary_cross_entropy(ours, theirs, 1.0)
    assert compiled == []
    with one_pass.compiled_losses():
        for n in (2, 1):
            found, _ = modulated_binary_cross_entropy(ours[:n], theirs[:n], 1.0)
            torch.testing.assert_close(found, expected[:n])
    assert compiled == [("_modulated_terms", {"dynamic": True})]


def test_a_compiler_that_fails_is_an_error_that_says_what_to_leave_out(logits, monkeypatch):
    def fails(*args):
        raise OSError("no g++")

    monkeypatch.setattr(one_pass, "_compiled", lambda terms: fails)
    with one_pass.compiled_losses(), pytest.raises(RuntimeError, match="train.compile_losses"):
        modulated_binary_cross_entropy(*logits, 1.0)
