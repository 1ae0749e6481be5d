"""A checkpoint that describes its detector, made without training, and images to detect on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from PIL import Image

from dense_kd.data.shapes import CLASSES
from dense_kd.engine.state.described_run import describe_run
from helpers.configs import fresh

SIDES = (48, 64)
"""Short and long side of the detector's images."""


def small_run(width: int = 8) -> DictConfig:
    """The run of a student that is built in milliseconds, on resized images."""
    cfg = fresh("quickstart/student.py")
    bottom_up = cfg.model.backbone.bottom_up
    bottom_up.stem.out_channels = width
    for index, stage in enumerate(bottom_up.stages):
        stage.in_channels = width * 2 ** max(index - 1, 0)
        stage.out_channels = width * 2**index
    cfg.dataloader.test.mapper.augmentations = [
        {
            "_target_": "detectron2.data.transforms.ResizeShortestEdge",
            "short_edge_length": SIDES[0],
            "max_size": SIDES[1],
        }
    ]
    return cfg


def trained(cfg: DictConfig) -> torch.nn.Module:
    """A model that finds something everywhere, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = instantiate(copy.deepcopy(cfg.model)).eval()
        torch.nn.init.normal_(model.head.cls_score.weight, std=0.3)
    torch.nn.init.zeros_(model.head.cls_score.bias)
    return model


def write_checkpoint(path: Path, cfg: DictConfig | None = None, **entry: Any) -> str:
    """A file as a run leaves it; ``entry`` replaces parts of what it says of the detector."""
    cfg = small_run() if cfg is None else cfg
    content = {**describe_run(cfg).content(), **entry}
    torch.save({"model": trained(cfg).state_dict(), "dense_kd": content, "iteration": 3}, path)
    return str(path)


def picture(height: int = 40, width: int = 60, seed: int = 0) -> Image.Image:
    """Random blocks, which differ from each other and from their reflections."""
    blocks = np.random.RandomState(seed).randint(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


NUM_CLASSES = len(CLASSES)
