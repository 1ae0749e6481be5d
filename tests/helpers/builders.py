"""Small detectors and batches for the tests: they run on the CPU in milliseconds, and are seeded.

A builder gives a LazyConfig (``retinanet_config``, ``fcos_config``, ``atss_config``,
``ddod_config``, ``gfl_config``, ``autoassign_config``) or a model made of it (``tiny_retinanet``,
...) whose parameters are random enough that scores, boxes and gradients are far from trivial.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import FPN, Backbone, ResNet
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNet as StockRetinaNet
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead as StockRetinaNetHead
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig
from torch import Tensor, nn

from dense_kd.detectors import (
    ATSS,
    DDOD,
    FCOS,
    GFL,
    ATSSHead,
    AutoAssign,
    AutoAssignHead,
    DDODHead,
    DistanceCoder,
    FCOSHead,
    GFLHead,
    RetinaNet,
    from_detectron2,
)
from helpers.copies import built_once

NUM_CLASSES = 4
GOLDEN = Path(__file__).parents[1] / "golden"

CASES = ("usual", "one empty", "all empty")
"""What :func:`batch` takes: boxes in both images, in the first only, in none."""


class TinyBlock(CNNBlockBase):
    """The first convolution of a ``BasicBlock``: enough where the backbone does not matter."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, norm: str):
        super().__init__(in_channels, out_channels, stride)
        self.conv1 = Conv2d(
            in_channels,
            out_channels,
            kernel_size=3,
            stride=stride,
            padding=1,
            bias=False,
            norm=get_norm(norm, out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(x).relu_()


def tiny_backbone(
    width: int = 8,
    channels: int = 16,
    num_levels: int = 3,
    in_channels: int = 3,
    block: type[CNNBlockBase] = BasicBlock,
    norm: str = "FrozenBN",
) -> Backbone:
    """ResNet with a block per stage and an FPN: p3..p5, or p3..p7 for five levels.

    Args:
        width: channels of res2; the stages after it double them.
        channels: of the pyramid.
        num_levels: 3 or 5.
        in_channels: of the images.
        block: class of the stages' blocks.
        norm: of the ResNet.
    """
    stages = [
        ResNet.make_stage(
            block,
            1,
            stride_per_block=[1 if index == 0 else 2],
            in_channels=width * 2 ** max(index - 1, 0),
            out_channels=width * 2**index,
            norm=norm,
        )
        for index in range(4)
    ]
    stem = BasicStem(in_channels=in_channels, out_channels=width, norm=norm)
    bottom_up = ResNet(stem, stages, out_features=["res3", "res4", "res5"])
    top_block = {3: None, 5: LastLevelP6P7(channels, channels, in_feature="p5")}[num_levels]
    return FPN(bottom_up, ["res3", "res4", "res5"], channels, top_block=top_block)


def level_names(num_levels: int) -> list[str]:
    """["p3", "p4", ...]."""
    return [f"p{level}" for level in range(3, 3 + num_levels)]


def retinanet_config(
    *,
    width: int = 8,
    channels: int = 16,
    num_levels: int = 3,
    block: type[CNNBlockBase] = BasicBlock,
    depth: int = 2,
    num_classes: int = NUM_CLASSES,
    norm: Any = "",
    **overrides: Any,
) -> DictConfig:
    """The LazyConfig of detectron2's own RetinaNet, six anchors per location.

    Args:
        width, channels, num_levels, block: see :func:`tiny_backbone`.
        depth: blocks of a tower.
        num_classes: K.
        norm: of the head.
        overrides: further arguments of the model.
    """
    names = overrides.pop("head_in_features", level_names(num_levels))
    strides = [2 ** int(name[1:]) for name in names]
    arguments: dict[str, Any] = {
        "backbone": L(tiny_backbone)(
            width=width, channels=channels, num_levels=num_levels, block=block
        ),
        "head": L(StockRetinaNetHead)(
            input_shape=[ShapeSpec(channels=channels)] * len(names),
            num_classes=num_classes,
            num_anchors=6,
            conv_dims=[channels] * depth,
            norm=norm,
        ),
        "head_in_features": names,
        "anchor_generator": L(DefaultAnchorGenerator)(
            sizes=[[2.0 * stride, 3.2 * stride] for stride in strides],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=strides,
            offset=0.0,
        ),
        "box2box_transform": L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        "anchor_matcher": L(Matcher)(
            thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
        "num_classes": num_classes,
        "pixel_mean": [103.53, 116.28, 123.675],
        "pixel_std": [57.375, 57.12, 58.395],
    }
    return L(StockRetinaNet)(**{**arguments, **overrides})


def fcos_config(**options: Any) -> DictConfig:
    """The LazyConfig of our FCOS; ``options`` as for :func:`point_config`."""
    return point_config(FCOS, FCOSHead, **options)


def atss_config(**options: Any) -> DictConfig:
    """The LazyConfig of our ATSS; ``options`` as for :func:`point_config`."""
    return point_config(ATSS, ATSSHead, **options)


def ddod_config(**options: Any) -> DictConfig:
    """The LazyConfig of our DDOD; ``options`` as for :func:`point_config`."""
    return point_config(DDOD, DDODHead, **options)


def gfl_config(**options: Any) -> DictConfig:
    """The LazyConfig of our GFL; ``options`` as for :func:`point_config`."""
    return point_config(GFL, GFLHead, **options)


def autoassign_config(**options: Any) -> DictConfig:
    """The LazyConfig of our AutoAssign; ``options`` as for :func:`point_config`."""
    return point_config(AutoAssign, AutoAssignHead, **options)


def point_config(
    detector: type,
    head_class: type,
    *,
    width: int = 8,
    channels: int = 16,
    num_levels: int = 3,
    block: type[CNNBlockBase] = BasicBlock,
    depth: int = 2,
    num_classes: int = NUM_CLASSES,
    norm: Any = "GN8",
    head: dict[str, Any] | None = None,
    **overrides: Any,
) -> DictConfig:
    """The LazyConfig of a detector with one prediction per location.

    Args:
        detector, head_class: classes of the package.
        width, channels, num_levels, block, depth, num_classes: as for :func:`retinanet_config`.
        norm: "GN8" is a GroupNorm of eight groups ("GN" needs 32 channels).
        head: further arguments of the head.
        overrides: further arguments of the model.
    """
    names = overrides.pop("head_in_features", None)
    num_inputs = len(names) if names else num_levels
    arguments: dict[str, Any] = {
        "backbone": L(tiny_backbone)(
            width=width, channels=channels, num_levels=num_levels, block=block
        ),
        "head": L(head_class)(
            input_shape=[ShapeSpec(channels=channels)] * num_inputs,
            num_classes=num_classes,
            conv_dims=[channels] * depth,
            norm=group_norm_8 if norm == "GN8" else norm,
            **(head or {}),
        ),
        "head_in_features": names,
        "num_classes": num_classes,
        "pixel_mean": [103.53, 116.28, 123.675],
        "pixel_std": [57.375, 57.12, 58.395],
    }
    return L(detector)(**{**arguments, **overrides})


@built_once
def tiny_retinanet(seed: int = 0, **overrides: Any) -> RetinaNet:
    """Our RetinaNet of :func:`retinanet_config` with :func:`randomized` parameters."""
    return randomized(instantiate(from_detectron2(retinanet_config(**overrides))), seed)


@built_once
def nine_anchor_retinanet(seed: int = 0, **overrides: Any) -> RetinaNet:
    """:func:`tiny_retinanet` with the nine anchors per location of the original."""
    generator = L(DefaultAnchorGenerator)(
        sizes=[[4 * stride * 2 ** (octave / 3) for octave in range(3)] for stride in (8, 16, 32)],
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=[8, 16, 32],
        offset=0.0,
    )
    config = from_detectron2(retinanet_config(anchor_generator=generator, **overrides))
    config.head.num_anchors = 9
    return randomized(instantiate(config), seed)


@built_once
def tiny_distribution_retinanet(seed: int = 0, reg_max: int = 16, **overrides: Any) -> RetinaNet:
    """:func:`tiny_retinanet` whose boxes are distributions over eighths of an anchor's size."""
    options = {
        "box2box_transform": L(DistanceCoder)(activation="identity", prior_scale=8),
        "box_reg_loss_type": "giou",
    }
    config = from_detectron2(retinanet_config(**{**options, **overrides}))
    config.head.reg_max = reg_max
    return randomized(instantiate(config), seed)


@built_once
def tiny_fcos(seed: int = 0, **overrides: Any) -> FCOS:
    """Our FCOS of :func:`fcos_config` with :func:`randomized` parameters."""
    return randomized(instantiate(fcos_config(**overrides)), seed)


@built_once
def tiny_atss(seed: int = 0, **overrides: Any) -> ATSS:
    """Our ATSS of :func:`atss_config` with :func:`randomized` parameters."""
    return randomized(instantiate(atss_config(**overrides)), seed)


@built_once
def tiny_ddod(seed: int = 0, **overrides: Any) -> DDOD:
    """Our DDOD of :func:`ddod_config` with :func:`randomized` parameters."""
    return randomized(instantiate(ddod_config(**overrides)), seed)


@built_once
def tiny_gfl(seed: int = 0, **overrides: Any) -> GFL:
    """Our GFL of :func:`gfl_config` with :func:`randomized` parameters."""
    return randomized(instantiate(gfl_config(**overrides)), seed)


@built_once
def tiny_autoassign(seed: int = 0, **overrides: Any) -> AutoAssign:
    """Our AutoAssign of :func:`autoassign_config` with :func:`randomized` parameters."""
    return randomized(instantiate(autoassign_config(**overrides)), seed)


def group_norm_8(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """:func:`fill_randomly`, with low scores."""
    fill_randomly(model, seed)
    with torch.no_grad():
        model.head.cls_score.bias.sub_(1.5)
    return model


def fill_randomly(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter and statistic a value that matters; a fresh head predicts constants."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point() or "cell_anchors" in name:
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
                tensor.copy_(1 + 0.2 * noise.clamp(-2, 2))  # variances and factors of norms
            elif tensor.dim() == 4:
                fan_in = tensor[0].numel()
                tensor.copy_(noise * (0.9 / fan_in) ** 0.5)
            elif tensor.dim() == 0 or name.endswith("center_prior.sigma"):
                tensor.copy_(1 + 0.2 * noise)  # scales of levels, deviations
            else:
                tensor.copy_(0.1 * noise)


def instances(size: tuple[int, int], boxes: list[list[float]], classes: list[int]) -> Instances:
    """Ground truth of an image of ``size`` (height, width)."""
    return Instances(
        size,
        gt_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        gt_classes=torch.tensor(classes, dtype=torch.int64),
    )


def batch(case: str = "usual", seed: int = 0) -> list[dict[str, Any]]:
    """Two images of different size with ground truth, as a DatasetMapper makes them.

    Args:
        case: one of :data:`CASES`.
        seed: of the images and the boxes.
    """
    assert case in CASES, case
    generator = torch.Generator().manual_seed(1000 + seed)
    inputs = []
    for index, (height, width) in enumerate([(64, 96), (80, 72)]):
        size = torch.tensor([width, height])
        low = torch.rand(3, 2, generator=generator) * 0.5 * size
        high = low + (0.25 + 0.25 * torch.rand(3, 2, generator=generator)) * size
        boxes = torch.cat((low, high), dim=1)
        classes = torch.randint(0, NUM_CLASSES, (3,), generator=generator)
        if case == "all empty" or (case == "one empty" and index == 1):
            boxes, classes = boxes[:0], classes[:0]
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        truth = instances((height, width), boxes.tolist(), classes.tolist())
        inputs.append(
            {
                "image": image,
                "height": 2 * height,
                "width": width,
                "file_name": f"image_{index}.jpg",
                "instances": truth,
            }
        )
    return inputs


@functools.cache
def _stored(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: np.array(arrays[key]) for key in arrays.files}


def golden(name: str) -> dict[str, Tensor]:
    """Copies of the arrays of numbers in ``tests/golden/<name>.npz`` as tensors."""
    numbers = _stored(name)
    return {key: torch.tensor(x) for key, x in numbers.items() if x.dtype.kind in "biuf"}


@functools.cache
def _golden_json(name: str, key: str) -> str:
    if (GOLDEN / f"{name}.npz").exists():
        return str(_stored(name)[key])
    return torch.load(GOLDEN / f"{name}.pth", weights_only=True)["meta"][key]


def golden_config(name: str, key: str) -> dict[str, Any]:
    """The JSON ``key`` of ``tests/golden/<name>.npz``, or of the ``meta`` of ``<name>.pth``."""
    return json.loads(_golden_json(name, key))


def assert_close(
    actual: Tensor,
    expected: Tensor,
    tolerance: float = 1e-5,
    what: str = "",
    scale: float = 0.0,
) -> None:
    """Assert that no element is off by more than ``tolerance`` times the largest expected one.

    Args:
        actual, expected: of one shape.
        tolerance: relative to the largest element, or to ``scale`` if that is larger.
        what: named in the message.
        scale: size of the terms whose rounding ``expected`` carries where they cancel.
    """
    assert actual.shape == expected.shape, f"{what}: {actual.shape} != {expected.shape}"
    if expected.numel() == 0:
        return
    difference = (actual.double() - expected.double()).abs().max().item()
    limit = tolerance * max(expected.double().abs().max().item(), scale)
    assert difference <= limit, f"{what}: off by {difference:.3e}, allowed are {limit:.3e}"
