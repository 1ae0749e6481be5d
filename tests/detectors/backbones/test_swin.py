"""Swin against torchvision's."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchvision
from detectron2.modeling import FPN
from torch import nn
from torch.nn import functional as F

from dense_kd.detectors import SwinTransformer
from helpers.tiny_backbones import randomize_norms

TINY = {"embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4)}
STAGE_ENDS = {"res2": 2, "res3": 4, "res4": 6, "res5": 8}  # of torchvision's features


def swin(**options) -> SwinTransformer:
    torch.manual_seed(0)
    return SwinTransformer(**TINY, **options)


@pytest.fixture(scope="module")
def classifier() -> torchvision.models.SwinTransformer:
    torch.manual_seed(0)
    arguments = {key: list(v) if isinstance(v, tuple) else v for key, v in TINY.items()}
    model = torchvision.models.SwinTransformer([4, 4], window_size=[7, 7], **arguments).eval()
    randomize_norms(model)
    return model


def features_of(classifier) -> dict[str, torch.Tensor]:
    return {k: v for k, v in classifier.state_dict().items() if k.startswith("features.")}


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (97, 130), (31, 5)])
def test_its_maps_are_normalised_ones_of_torchvision(classifier, size):
    model = swin().eval()
    report = model.load_state_dict(features_of(classifier), strict=False)
    assert not report.unexpected_keys  # every key has its place
    norms = [f"norm{stage}" for stage in range(4)]
    assert report.missing_keys == [
        f"{norm}.{kind}" for norm in norms for kind in ("weight", "bias")
    ]
    for norm in norms:
        randomize_norms(getattr(model, norm))
    images = torch.randn(2, 3, *size)
    outputs = model(images)
    assert list(outputs) == list(STAGE_ENDS) == list(model.output_shape())
    whole_patches = F.pad(images, (0, -size[1] % 4, 0, -size[0] % 4))
    for stage, (name, end) in enumerate(STAGE_ENDS.items()):
        x = classifier.features[:end](whole_patches)  # (N, Hl, Wl, C)
        norm = getattr(model, norms[stage])
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        x = (x - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias
        torch.testing.assert_close(outputs[name], x.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)
        shape = model.output_shape()[name]
        height, width = (-(-length // shape.stride) for length in size)
        assert shape.channels == 8 * 2**stage and shape.stride == 4 * 2**stage
        assert outputs[name].shape == (2, shape.channels, height, width)
        assert outputs[name].is_contiguous()


def test_the_defaults_are_swin_t():
    with torch.device("meta"):
        classifier = torchvision.models.swin_t(weights=None)
        model = SwinTransformer()
    ours = {k: v.shape for k, v in model.state_dict().items() if not k.startswith("norm")}
    assert ours == {k: v.shape for k, v in features_of(classifier).items()}
    assert [s.channels for s in model.output_shape().values()] == [96, 192, 384, 768]


def test_layers_and_norms_that_no_output_needs_are_left_out():
    model = swin(out_features=["res3", "res4"])
    outputs = model(torch.randn(1, 3, 64, 64))
    assert list(outputs) == ["res3", "res4"] and len(model.features) == 6
    assert not hasattr(model, "norm0") and not hasattr(model, "norm3")
    sum(x.square().sum() for x in outputs.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_depth_is_stochastic_in_training_only_and_more_so_in_later_blocks():
    model = swin(drop_path_rate=0.9)
    rates = [m.p for m in model.modules() if isinstance(m, torchvision.ops.StochasticDepth)]
    assert rates == pytest.approx([0.9 * block / 7 for block in range(8)])
    images = torch.randn(2, 3, 64, 64)
    first, second = (model.train()(images)["res5"] for _ in range(2))
    assert not torch.allclose(first, second)
    first, second = (model.eval()(images)["res5"] for _ in range(2))
    assert torch.equal(first, second)
    model = swin(drop_path_rate=0.0)
    assert torch.equal(model.train()(images)["res5"], model.eval()(images)["res5"])


@pytest.mark.parametrize("freeze_at, end", list(enumerate([0, 1, 2, 4, 6, 8])))
def test_frozen_stages_are_fixed_and_the_others_are_not(freeze_at, end):
    model = swin(freeze_at=freeze_at, drop_path_rate=0.9)
    frozen = {p for layer in model.features[:end] for p in layer.parameters()}
    images = torch.randn(2, 3, 64, 64)
    outputs = model(images)  # in training mode since its construction
    sum((x * torch.randn_like(x)).sum() for x in outputs.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != (parameter in frozen), name
        assert (parameter.grad is None) == (parameter in frozen), name
    never_train = {m for layer in list(model.features)[:end] for m in layer.modules()}
    for mode in (True, False):
        model.train(mode)
        assert all(m.training == (mode and m not in never_train) for m in model.modules())
    fixed = [name for name, last in STAGE_ENDS.items() if last <= end]
    evaluated = model.eval()(images)
    assert all(torch.equal(outputs[name], evaluated[name]) for name in fixed)


def test_a_pyramid_on_it_pads_to_its_largest_stride():
    fpn = FPN(swin(out_features=["res3", "res4", "res5"]), ["res3", "res4", "res5"], 4)
    assert fpn.size_divisibility == 32
    levels = fpn(torch.randn(1, 3, 96, 64))
    assert [tuple(x.shape[1:]) for x in levels.values()] == [(4, 12, 8), (4, 6, 4), (4, 3, 2)]


def test_it_runs_in_half_precision_with_finite_gradients():
    model = swin()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(torch.randn(1, 3, 64, 64))
    sum(x.float().square().sum() for x in outputs.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
@pytest.mark.parametrize("example", [(64, 96), (20, 300)])
def test_a_trace_shifts_windows_on_the_axes_that_have_several(example):
    model = swin().eval()
    for block in model.modules():
        if isinstance(block, nn.Linear):
            nn.init.normal_(block.weight, std=0.3)  # attention that matters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = torch.jit.trace(model, torch.randn(1, 3, *example), strict=False, check_trace=False)
    for size in [(64, 96), (97, 131), (20, 20), (300, 20), (20, 300)]:
        images = torch.randn(1, 3, *size)
        with torch.jit.optimized_execution(False):
            found = trace(images)
        for name, expected in model(images).items():
            torch.testing.assert_close(found[name], expected, msg=f"{name} of {size}")


def test_stages_without_their_numbers_are_named():
    with pytest.raises(ValueError, match=r"depths=\[2, 2\], num_heads=\[3, 6, 12, 24\]: expected"):
        SwinTransformer(depths=(2, 2))
