"""The configs of the project by name, and models of them that are cheap to build."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from dense_kd import get_config_file

ROOT = Path(get_config_file("quickstart/student.py")).parent.parent
RUNS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).parts[0] != "common"
)
FULL_RUNS = [name for name in RUNS if not name.startswith(("quickstart/", "bccd/"))]
"""Those of papers."""

NARROWER = 4
"""Times fewer channels of a shallow ResNet; 32 groups or more still divide them."""

_load = LazyConfig.load
_shared: Path | None = None


def share(folder: Path) -> None:
    """Keep in ``folder`` what was loaded: the first of several processes loads it for all."""
    global _shared
    _shared = folder


@functools.cache
def _pickled(path: str) -> bytes:
    if _shared is None:
        return pickle.dumps(_load(path))
    stored = _shared / f"{hashlib.sha1(path.encode()).hexdigest()}.pickle"
    if not stored.exists():
        unfinished = stored.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(pickle.dumps(_load(path)))
        unfinished.replace(stored)
    return stored.read_bytes()


@contextlib.contextmanager
def files_loaded_once() -> Iterator[None]:
    """Each config of the project is run once, and then copied; functions of one are no copies."""

    def load(path: str, *keys: object) -> object:
        if keys or not Path(path).is_relative_to(ROOT):
            return _load(path, *keys)
        return pickle.loads(_pickled(path))

    with mock.patch.object(LazyConfig, "load", load):
        yield


def fresh(name: str) -> DictConfig:
    """The config, as it is when it was just loaded.

    It is a copy, and so is what it takes from other configs: a file is run once for all that build
    on it.
    """
    with files_loaded_once():
        return LazyConfig.load(str(ROOT / name))


@functools.cache
def load(name: str) -> DictConfig:
    """The config, which is not to be changed: :func:`fresh` gives one that may be."""
    cfg = fresh(name)
    OmegaConf.set_readonly(cfg, True)
    return cfg


def detectors_of(model: DictConfig) -> list[DictConfig]:
    """The student and the teacher of a config's model, or the one detector that it is."""
    return [model.student, model.teacher.model] if "teacher" in model else [model]


def make_shallow(model: DictConfig) -> None:
    """Leave one block in each stage of a detector's backbone, of a ResNet with fewer channels.

    Strides stay, and the channels of the pyramid.
    """
    backbone = model.backbone
    bottom_up = backbone.bottom_up
    for stage in bottom_up.get("stages", ()):
        stage.num_blocks = 1
        stage.stride_per_block = stage.stride_per_block[:1]
        for key in ("in_channels", "out_channels", "bottleneck_channels"):
            if key in stage:
                stage[key] //= NARROWER
    if "stages" in bottom_up:
        bottom_up.stem.out_channels //= NARROWER
        top_block = backbone.get("top_block")
        if top_block and "in_channels" in top_block and top_block.get("in_feature") != "p5":
            top_block.in_channels //= NARROWER
    kind = getattr(bottom_up._target_, "__name__", "")
    if kind == "SwinTransformer":
        bottom_up.depths = [1, 1, 1, 1]
    elif kind == "TimmBackbone":
        bottom_up.name = "test_resnet"


def skip_without_timm(cfg: DictConfig) -> None:
    """Skip a test that builds a network of timm, if that is not installed."""
    if "TimmBackbone" in repr(cfg):
        pytest.importorskip("timm")


@contextlib.contextmanager
def random_numbers_from_a_table() -> Iterator[None]:
    """To draw those of all weights takes most of the time of building a large model."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(65521, generator=generator)  # a prime: filters do not repeat each other
    uniform = torch.rand(65521, generator=generator)

    def fill(tensor: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        for part in tensor.detach().view(-1).split(len(numbers)):
            part.copy_(numbers[: len(part)])
        return tensor

    def normal_(self: torch.Tensor, mean: float = 0.0, std: float = 1.0, **_) -> torch.Tensor:
        return fill(self, normal * std + mean)

    def uniform_(self: torch.Tensor, low: float = 0.0, high: float = 1.0, **_) -> torch.Tensor:
        return fill(self, uniform * (high - low) + low)

    with mock.patch.multiple(torch.Tensor, normal_=normal_, uniform_=uniform_):
        yield
