"""Networks that give features and no detections, for teachers without a head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dense_kd import FeatureTeacher

PATCH = 16
"""Side of the patches of :class:`Tokens`, in pixels."""


class OneMap(nn.Module):
    """A map of eight pixels per cell."""

    width = 6

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, self.width, kernel_size=8, stride=8)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)  # (N, 6, H/8, W/8)


class Tokens(nn.Module):
    """What a vision transformer gives: tokens of patches, and others before them."""

    width = 5

    def __init__(self, prefix: int = 0):
        super().__init__()
        self.prefix = prefix
        self.embed = nn.Conv2d(3, self.width, kernel_size=PATCH, stride=PATCH)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        others = tokens.new_full((len(tokens), self.prefix, self.width), 7.0)
        return torch.cat((others, tokens), dim=1)  # (N, prefix + patches, 5)


def feature_teacher(network: Any = None, **options: Any) -> FeatureTeacher:
    """One that sees RGB images as they are, of :class:`OneMap` by default."""
    given = {"weights": None, "pixel_mean": [0.0] * 3, "pixel_std": [1.0] * 3, **options}
    return FeatureTeacher(OneMap() if network is None else network, **given)
