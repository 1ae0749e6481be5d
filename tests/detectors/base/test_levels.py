"""Backbone, head and anchors that do not fit together are refused when a detector is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes
from omegaconf import DictConfig
from torch import Tensor, nn

from dense_kd.detectors import DenseDetector, TorchvisionAnchorGenerator, from_detectron2
from helpers.builders import (
    atss_config,
    autoassign_config,
    ddod_config,
    fcos_config,
    gfl_config,
    retinanet_config,
    tiny_backbone,
    tiny_fcos,
    tiny_retinanet,
)

STRIDES = [8, 16, 32, 64, 128]


def stock_config(**options: Any) -> DictConfig:
    return from_detectron2(retinanet_config(**options))


def anchors(
    strides: list[int], ratios: Sequence[Any] = (0.5, 1.0, 2.0), **options: Any
) -> nn.Module:
    sizes = [[2.0 * stride, 3.2 * stride] for stride in strides]
    return DefaultAnchorGenerator(
        sizes=sizes, aspect_ratios=list(ratios), strides=strides, **options
    )


@pytest.mark.parametrize(
    "build",
    [atss_config, autoassign_config, ddod_config, fcos_config, gfl_config, retinanet_config],
)
def test_a_head_for_maps_of_another_width_is_refused(build: Callable[..., DictConfig]):
    config = build()
    config.backbone = tiny_backbone(channels=24)
    with pytest.raises(ValueError, match=r"maps of 16 channels and gets \{'p3': 24"):
        instantiate(from_detectron2(config) if build is retinanet_config else config)


def retinanet(anchor_generator: nn.Module) -> DenseDetector:
    return tiny_retinanet(num_levels=5, anchor_generator=anchor_generator)


class PlainAnchors(nn.Module):
    """Squares on every location of any number of maps; it says nothing about itself."""

    def __init__(self, strides: list[int], count: int = 1):
        super().__init__()
        self.of_levels, self.count = strides, count

    def forward(self, features: list[Tensor]) -> list[Boxes]:
        levels = []
        for feature, stride in zip(features, self.of_levels):
            rows, columns = (torch.arange(n) * float(stride) for n in feature.shape[-2:])
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            squares = torch.stack((x, y, x + stride, y + stride), dim=-1).view(-1, 4)
            levels.append(Boxes(squares.repeat_interleave(self.count, dim=0)))
        return levels


WRONG = {
    "fewer levels": (anchors(STRIDES[:3]), "gives 3 levels"),
    "more levels": (anchors([*STRIDES, 256]), r"strides \[8, 16, 32, 64, 128, 256\]"),
    "other strides": (anchors([4, 8, 16, 32, 64]), r"strides \[4.0, 8.0, 16.0"),
    "another order": (anchors(STRIDES[::-1]), r"strides \[128.0, 64.0, 32.0"),
    "fewer anchors": (anchors(STRIDES, [1.0]), r"\[2.0, 2.0, 2.0, 2.0, 2.0\] anchors per"),
    "unequal anchors": (anchors(STRIDES, [[0.5, 1.0, 2.0]] * 4 + [[1.0]]), r"6.0, 2.0\] anchors"),
}


@pytest.mark.parametrize(("generator", "message"), WRONG.values(), ids=list(WRONG))
def test_anchors_of_another_pyramid_are_refused(generator: nn.Module, message: str):
    with pytest.raises(ValueError, match=message) as raised:
        retinanet(generator)
    assert "strides are [8, 16, 32, 64, 128], with 6 anchors per location" in str(raised.value)


@pytest.mark.parametrize(
    "generator",
    [
        anchors(STRIDES, offset=0.5),
        TorchvisionAnchorGenerator(
            sizes=[[stride, 2 * stride] for stride in STRIDES],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=STRIDES,
        ),
        PlainAnchors(STRIDES, count=6),
    ],
    ids=lambda generator: type(generator).__name__,
)
def test_anchors_of_the_pyramid_are_taken_however_they_are_made(generator: nn.Module):
    assert retinanet(generator).strides == STRIDES


@pytest.mark.parametrize(
    "generator",
    [PlainAnchors(STRIDES[:4]), PlainAnchors([8, 16, 32, 64, 64]), PlainAnchors(STRIDES, count=2)],
    ids=["levels", "strides", "anchors"],
)
def test_a_generator_that_says_nothing_is_looked_at(generator: nn.Module):
    with pytest.raises(ValueError, match="anchor_generator has levels"):
        tiny_fcos(num_levels=5, anchor_generator=generator)


CONFIGS = (fcos_config, atss_config, ddod_config, gfl_config, autoassign_config, stock_config)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["p3", "p4", "p8"], r"'p8'\]: expected one or more of the backbone's maps, \['p3'"),
        (["p5", "p4", "p3"], r"strides \[32, 16, 8\]; expected the finest first"),
    ],
    ids=["unknown", "coarsest first"],
)
def test_levels_that_the_backbone_lacks_or_out_of_order_are_refused(config, names, message):
    model = config(num_levels=3)
    model.head_in_features = names
    with pytest.raises(ValueError, match=message):
        instantiate(model)
