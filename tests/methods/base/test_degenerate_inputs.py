"""What no method may turn into NaN or infinity."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from detectron2.config import LazyCall as L
from torch import Tensor, nn

from dense_kd import Distiller, methods
from dense_kd.detectors import DistanceCoder
from dense_kd.methods.base.objects import points_in_boxes
from dense_kd.outputs import DensePass
from helpers.builders import tiny_fcos, tiny_gfl
from helpers.feature_cases import distill
from helpers.method_cases import build, every_method, images_with, teacher_of
from helpers.torch_features import autocast_has

OBJECTS = {
    "none": ([],),
    "on no location": ([[33.0, 33.0, 35.0, 35.5]], [[41.0, 17.0, 43.5, 19.0]]),
    "on one location": ([[39.0, 39.0, 41.0, 41.0]], [[39.5, 39.0, 40.5, 40.5]]),
    "on a line": ([[2.0, 39.5, 62.0, 41.0]], [[39.5, 2.0, 41.0, 62.0]]),
    "usual": ([[4.0, 6.0, 40.0, 50.0], [30.0, 20.0, 60.0, 62.0]], [[1.0, 1.0, 63.0, 63.0]]),
}
"""Boxes of the objects of each image. A single image has a single cell on the coarse levels."""
LARGE = 1e4
"""Of which float16 cannot hold the square."""


def losses_of(model: Distiller, objects: str) -> tuple[dict[str, Tensor], list[Tensor]]:
    """A training step up to the losses of the method, and all that these may have a gradient to.

    The student's pass is cut off from its network, where float16 would need a gradient scaler.
    """
    inputs: list[Tensor] = []

    def leaf(tensor: Tensor) -> Tensor:
        inputs.append(tensor.detach().requires_grad_())
        return inputs[-1]

    def cut_off(module: nn.Module, args: tuple) -> tuple:
        dense: DensePass = args[0]
        levels = {
            name: [leaf(x) for x in getattr(dense, name)]
            for name in ("features", "logits", "deltas", "quality", "distribution")
            if getattr(dense, name) is not None
        }
        taps = {tap: [leaf(x) for x in features] for tap, features in dense.taps.items()}
        return (dataclasses.replace(dense, taps=taps, **levels), *args[1:])

    with model.kd.register_forward_pre_hook(cut_off):
        found = model(images_with(*OBJECTS[objects]))
    return {k: loss for k, loss in found.items() if k.startswith("kd_")}, inputs


def assert_finite(losses: dict[str, Tensor], inputs: list[Tensor], model: Distiller) -> None:
    assert losses
    for key, loss in losses.items():
        assert loss.isfinite() and loss.dtype == torch.float32, key
    sum(losses.values()).backward()
    assert any(x.grad is not None for x in inputs)
    assert all(x.grad is None or x.grad.isfinite().all() for x in inputs)
    for key, parameter in model.kd.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("detector", [tiny_fcos, tiny_gfl])
def test_objects_are_on_as_few_locations_as_their_names_say(detector):
    maps = [torch.zeros(1, 1, side, side) for side in (8, 4, 2, 1, 1)]
    anchors = detector(num_levels=5).anchor_generator(maps)
    points = torch.cat([x.tensor for x in anchors]).unflatten(1, (2, 2)).mean(dim=1)
    for name, count in (("on no location", 0), ("on one location", 1), ("on a line", 4)):
        for boxes in OBJECTS[name]:
            found = points[points_in_boxes(points, torch.tensor(boxes))[0]]
            assert len(found) == count or len(found) > count > 1
            assert count == 0 or min(len(axis.unique()) for axis in found.T) == 1


@pytest.mark.parametrize("objects", [name for name in OBJECTS if name != "usual"])
@every_method
def test_objects_on_few_locations_give_finite_losses_and_gradients(name, variant, objects):
    model = build(name, variant)
    assert_finite(*losses_of(model, objects), model)


@pytest.mark.parametrize(("objects", "bias"), [("none", 0.7), ("usual", 0.0)])
@every_method
def test_constant_maps_give_finite_losses_and_gradients(name, variant, objects, bias):
    model = build(name, variant)
    for detector in (model.student, teacher_of(model).model):
        for convolution in pyramid(detector):
            nn.init.zeros_(convolution.weight)
            nn.init.constant_(convolution.bias, bias)
    losses, inputs = losses_of(model, objects)
    assert all((x == bias).all() for x in inputs[:5])
    assert_finite(losses, inputs, model)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
@every_method
def test_scores_of_zero_and_of_one_give_finite_losses_and_gradients(name, variant, logit):
    model = build(name, variant)
    for detector in (model.student, teacher_of(model).model):
        nn.init.zeros_(detector.head.cls_score.weight)
        nn.init.constant_(detector.head.cls_score.bias, logit)
    assert_finite(*losses_of(model, "usual"), model)


def exponential_fcos(**options):
    """FCOS whose distances are exponentials, as those of the paper."""
    return tiny_fcos(box2box_transform=L(DistanceCoder)(activation="exp"), **options)


EXPONENTIAL = {
    "BCKD": {},
    "CrossKD": {"depth": 1, "loc_loss": "iou"},
    "GIBox": {},
    "KD": {},
    "PGD": {},
    "TID": {},
}
"""Methods that compare boxes of any code, and their options."""


@every_method
def test_codes_of_boxes_of_any_size_give_finite_losses_and_gradients(name, variant):
    assert_finite_with_large_codes(build(name, variant))


@pytest.mark.parametrize("name", EXPONENTIAL)
def test_exponential_codes_of_any_size_give_finite_losses_and_gradients(name):
    student, teacher = (exponential_fcos(num_levels=5, width=4, seed=seed) for seed in range(2))
    method = getattr(methods, name)(**EXPONENTIAL[name])
    assert_finite_with_large_codes(distill(student, teacher, method))


def assert_finite_with_large_codes(model: Distiller) -> None:
    """In a distribution, only the first distance gets a large logit."""
    detectors = [model.student, teacher_of(model).model]
    heads = [detector.head for detector in detectors]
    for detector in detectors:  # the same in each step, which begins at the heads
        images = detector.preprocess_image(images_with(*OBJECTS["usual"])).tensor
        with torch.no_grad():
            levels = detector.backbone(images)
        detector.backbone.forward = lambda _, levels=levels: levels
    for large, code in itertools.product(([0], [1], [0, 1]), (60.0, 1e30, -1e30)):
        for head in (heads[index] for index in large):
            nn.init.zeros_(head.bbox_pred.weight)
            nn.init.zeros_(head.bbox_pred.bias)
            with torch.no_grad():
                head.bbox_pred.bias[:: (head.reg_max or 0) + 1] = code
        assert_finite(*losses_of(model, "usual"), model)
        model.zero_grad()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@every_method
def test_large_features_under_autocast_give_finite_losses_in_float32(name, variant, dtype):
    if not autocast_has(dtype):
        pytest.skip(f"this version of torch has no autocast in {dtype} on the CPU")
    model = build(name, variant)
    for detector in (model.student, teacher_of(model).model):
        images = detector.preprocess_image(images_with([]))
        with torch.no_grad():
            largest = max(x.abs().max() for x in detector.run(images).features)
            for convolution in pyramid(detector):
                convolution.bias *= LARGE / largest
            for convolution in pyramid(detector)[:3]:
                convolution.weight *= LARGE / largest
    with torch.autocast("cpu", dtype=dtype):
        losses, inputs = losses_of(model, "usual")
    features = inputs[:5]
    assert all(x.dtype == dtype and x.isfinite().all() for x in features)
    assert max(x.abs().max() for x in features) > LARGE / 2
    assert_finite(losses, inputs, model)


def pyramid(detector: nn.Module) -> list[nn.Conv2d]:
    """The convolutions that the five maps come from, in their order."""
    backbone = detector.backbone
    outputs = [backbone.fpn_output3, backbone.fpn_output4, backbone.fpn_output5]
    return [*outputs, backbone.top_block.p6, backbone.top_block.p7]
