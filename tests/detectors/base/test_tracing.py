"""A traced detector is the detector, on every image and not only on the one it was traced with."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable

import pytest
import torch
from detectron2.config import LazyCall as L
from torch import Tensor, nn

from dense_kd.detectors import DenseDetector, TorchvisionAnchorGenerator
from dense_kd.detectors.base.detections import at_most
from helpers.builders import (
    TinyBlock,
    tiny_atss,
    tiny_ddod,
    tiny_distribution_retinanet,
    tiny_fcos,
    tiny_gfl,
)
from helpers.detector_variants import VARIANTS, Variant

TORCHVISION_ANCHORS = L(TorchvisionAnchorGenerator)(
    sizes=[[2.0 * stride, 3.2 * stride] for stride in (8, 16, 32)],
    aspect_ratios=[0.5, 1.0, 2.0],
    strides=[8, 16, 32],
)
TRACED = {
    **VARIANTS,
    "FCOS with products, clipped": Variant(
        tiny_fcos, {"score": "product", "clip_before_nms": True}
    ),
    "FCOS of distributions": Variant(tiny_fcos, {"head": {"reg_max": 8}}),
    "ATSS of distributions": Variant(tiny_atss, {"head": {"reg_max": 8}}),
    "GFL, clipped after NMS": Variant(tiny_gfl, {"clip_before_nms": False}),
    "DDOD with two detections": Variant(tiny_ddod, {"max_detections_per_image": 2}),
    "RetinaNet of distributions": Variant(tiny_distribution_retinanet),
    "RetinaNet with torchvision's anchors": dataclasses.replace(
        VARIANTS["RetinaNet"], options={"anchor_generator": TORCHVISION_ANCHORS}
    ),
}
EVERY_TRACED = pytest.mark.parametrize("name", TRACED)
EXAMPLE = (64, 96)
SIZES = [(70, 40), (33, 47), (7, 200)]  # higher, smaller and wider


class Detections(nn.Module):
    """A detector from tensors to tensors, as detectron2's ``TracingAdapter`` makes it."""

    def __init__(self, model: DenseDetector):
        super().__init__()
        self.model = model

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        found = [x["instances"] for x in self.model([{"image": image} for image in images])]
        return tuple(
            tensor for x in found for tensor in (x.pred_boxes.tensor, x.scores, x.pred_classes)
        )


def image(size: tuple[int, int], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)


def traced(model: Callable, *example: Tensor) -> Callable:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return torch.jit.trace(model, example, check_trace=False)


def as_function(model: nn.Module) -> Callable:
    """A trace of a function has the same operations, and takes half the time."""
    model.requires_grad_(False)  # parameters become constants
    return lambda *images: model(*images)


def assert_equal_detections(
    trace: Callable, expected: tuple[Tensor, ...], *images: Tensor
) -> list[int]:
    """The trace gives what the model gave; returns how many detections these are in each image."""
    with torch.no_grad(), torch.jit.optimized_execution(False):  # compiling takes most of the time
        found = trace(*images)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-3)
    return [len(scores) for scores in expected[1::3]]


@functools.cache
def model_and_images(name: str) -> tuple[Detections, list[Tensor], list[tuple[Tensor, ...]]]:
    """A model of ``TRACED``, images of which it finds nothing in the first and something in the
    second, and what it finds in each."""
    options = {"block": TinyBlock, "depth": 1, "test_topk_candidates": 20}
    detector = TRACED[name].model(**options).eval()

    def best(x: Tensor) -> float:
        dense = detector.run(detector.preprocess_image([{"image": x}]))
        return max(scores.max().item() for scores in detector.detection_scores(dense)[0])

    model = Detections(detector)
    with torch.no_grad():
        scored = {best(x): x for x in (image(EXAMPLE, seed) for seed in range(4))}
        lowest, highest = min(scored), max(scored)
        detector.test_score_thresh = (lowest + highest) / 2
        images = [scored[lowest], scored[highest]]
        images += [image(size, seed) for seed, size in enumerate(SIZES, start=5)]
        return model, images, [model(x) for x in images]


@EVERY_TRACED
@pytest.mark.parametrize("example", ["nothing", "something"])
def test_a_trace_of_any_image_equals_the_detector_on_all_others(name: str, example: str):
    model, images, expected = model_and_images(name)
    trace = traced(as_function(model), images[0 if example == "nothing" else 1])
    counts = [assert_equal_detections(trace, *both) for both in zip(expected, images)]
    assert counts[0] == [0] and counts[1][0] > 0


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
def test_a_traced_batch_equals_itself_on_images_of_other_sizes(variant: Variant):
    options = {"block": TinyBlock, "depth": 1, "test_score_thresh": 0.1}
    model = Detections(variant.model(**options)).eval()
    traceable = as_function(model) if variant.options else model  # a module of each class
    trace = traced(traceable, image((64, 96)), image((50, 70)))
    images = image((50, 30), 2), image((130, 96), 3)
    with torch.no_grad():
        expected = model(*images)
    assert len(assert_equal_detections(trace, expected, *images)) == 2


def test_a_size_is_bounded_as_what_it_is():
    assert at_most(7, 5) == 5 and at_most(3, 5) == 3
    bounded = at_most(torch.tensor(7), 5)
    assert isinstance(bounded, Tensor) and bounded == 5
