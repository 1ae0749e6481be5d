"""The autocast of the pretended GPU goes by CUDA's lists, which are not those of the CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dense_kd.benchmark.pretended import pretended_gpu
from dense_kd.compat import full_precision, grad_scaler


@pytest.fixture
def gpu():
    with pretended_gpu() as gpu:
        yield gpu


IN_FLOAT16 = pytest.mark.skipif(
    not hasattr(torch.amp, "GradScaler"), reason="the CPU has no float16 before torch 2.3"
)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, pytest.param(torch.float16, marks=IN_FLOAT16)], ids=str
)
def test_products_are_low_and_what_needs_range_is_float32(gpu, dtype):
    x = torch.rand(4, 4, device="cuda")
    with torch.autocast("cuda", dtype=dtype):
        low = x @ x
        for found in (low, F.linear(x, x), torch.einsum("ij,jk->ik", x, x), low * 2, low.mean()):
            assert found.dtype == dtype
        for function in (torch.exp, torch.sum, torch.log, F.softplus, torch.square, torch.norm):
            assert function(low).dtype == torch.float32
        for found in (low**2, 1 / low, low.softmax(0), low.pow(2), F.mse_loss(low, low)):
            assert found.dtype == torch.float32
        assert torch.addcmul(x, low, low).dtype == torch.float32
        assert (x.double() @ x.double()).dtype == torch.float64
        assert (x.cpu() @ x.cpu()).dtype == torch.float32  # which is on the other device
        with full_precision(x.device):
            assert (x @ x).dtype == torch.float32 and low.exp().dtype == dtype
    assert (x @ x).dtype == torch.float32


def test_a_cross_entropy_of_probabilities_is_refused(gpu):
    x = torch.full((3,), 0.5, device="cuda")
    F.binary_cross_entropy(x, x)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        F.binary_cross_entropy_with_logits(x, x)
        with pytest.raises(RuntimeError, match="unsafe to autocast"):
            F.binary_cross_entropy(x, x)


def test_what_a_mask_writes_must_have_the_dtype_of_its_place(gpu):
    x = torch.ones(3, 3, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        with pytest.raises(RuntimeError, match="(?i)dtype"):
            x[x > 0] = (x @ x).flatten()


def test_a_weight_is_cast_once_in_a_region_and_gets_its_gradient(gpu):
    layer = nn.Linear(2, 2, bias=False).to("cuda")
    x = torch.ones(1, 2, device="cuda")
    for _ in range(2):
        with gpu.counting() as counts, torch.autocast("cuda", dtype=torch.bfloat16):
            with full_precision(x.device):
                pass
            loss = (layer(x) + layer(x)).sum()
        assert counts.operations["_to_copy"] == 4  # two inputs, one weight, the sum
    loss.backward()
    assert layer.weight.grad.dtype == torch.float32 and (layer.weight.grad == 2).all()


@IN_FLOAT16
def test_gradients_of_float16_are_scaled(gpu):
    weight = torch.ones(3, device="cuda", requires_grad=True)
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), grad_scaler(enabled=True)
    scaler.scale(weight.sum()).backward()
    assert (weight.grad == scaler.get_scale()).all()
    scaler.step(optimizer)
    scaler.update()
    assert weight.tolist() == [0, 0, 0] and scaler.get_scale() > 1
