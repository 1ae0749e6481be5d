"""The configs of the project by name, and models of them that are cheap to build."""

from __future__ import annotations

import builtins
import contextlib
import copy
import functools
import hashlib
import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

import pytest
import torch
from detectron2.config import LazyCall, LazyConfig, lazy
from detectron2.layers import ShapeSpec
from omegaconf import DictConfig, OmegaConf
from omegaconf.base import Metadata

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
"""Times fewer channels of a small detector; 32 groups or more still divide them."""

_load = LazyConfig.load
_call = LazyCall.__call__
_import = builtins.__import__
_compiled = functools.cache(compile)
_shared: Path | None = None


def share(folder: Path) -> None:
    """Keep in ``folder`` what was loaded: the first of several processes loads it for all."""
    global _shared
    _shared = folder


def _call_with_plain_imports(self: LazyCall, **arguments: object) -> DictConfig:
    """OmegaConf imports in its functions, and what detectron2 makes of ``import`` is slow."""
    of_detectron2, builtins.__import__ = builtins.__import__, _import
    try:
        return _call(self, **arguments)
    finally:
        builtins.__import__ = of_detectron2


def _copy_of_metadata(self: Metadata, memo: dict[int, object]) -> Metadata:
    """Each node has some, and ``copy`` knows nothing of what is in them."""
    copied = object.__new__(type(self))
    changing = {"flags": dict(self.flags), "resolver_cache": copy.copy(self.resolver_cache)}
    copied.__dict__.update(self.__dict__, **changing)
    return copied


def _load_fast(path: str) -> DictConfig:
    """What others import is run for each of them, but parsed and compiled once."""
    calling = mock.patch.object(LazyCall, "__call__", _call_with_plain_imports)
    copying = mock.patch.object(Metadata, "__deepcopy__", _copy_of_metadata, create=True)
    parsing = {"_validate_py_syntax": lambda _: None, "compile": _compiled}
    with calling, copying, mock.patch.multiple(lazy, create=True, **parsing):
        return _load(path)


@functools.cache
def _pickled(path: str) -> bytes:
    if _shared is None:
        return pickle.dumps(_load_fast(path))
    stored = _shared / f"{hashlib.sha1(path.encode()).hexdigest()}.pickle"
    if not stored.exists():
        unfinished = stored.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(pickle.dumps(_load_fast(path)))
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


def loaded_anew(name: str) -> DictConfig:
    """The config, from its file and those of all others that it takes something from."""
    with mock.patch.object(LazyConfig, "load", _load):
        return LazyConfig.load(str(ROOT / name))


def fresh(name: str) -> DictConfig:
    """The config, as it is when it was just loaded.

    It is a copy, and so is what it takes from other configs: a file is run once for all that build
    on it.
    """
    with files_loaded_once():  # as in all tests, and while they are collected
        return LazyConfig.load(str(ROOT / name))


@functools.cache
def load(name: str) -> DictConfig:
    """The config, which is not to be changed: :func:`fresh` gives one that may be."""
    cfg = fresh(name)
    OmegaConf.set_readonly(cfg, True)
    return cfg


def detectors_of(model: DictConfig) -> list[DictConfig]:
    """The student and the teacher of a config's model, if there is one, or the one detector that
    it is."""
    if "student" not in model:
        return [model]
    return [model.student] if model.teacher is None else [model.student, model.teacher.model]


def _divide(part: Mapping, *channels: str) -> None:
    for key in channels:
        if key in part:
            part[key] //= NARROWER


def make_small(model: DictConfig) -> None:
    """Leave one block in each stage of a detector's ResNet, and fewer channels in it and behind.

    Strides stay. All channels are divided, so that what did not fit together still does not.
    """
    backbone, head = model.backbone, model.head
    bottom_up, top_block = backbone.bottom_up, backbone.get("top_block") or {}
    for stage in bottom_up.get("stages", ()):
        stage.num_blocks = 1
        stage.stride_per_block = stage.stride_per_block[:1]
        _divide(stage, "in_channels", "out_channels", "bottleneck_channels")
    if "stages" in bottom_up:
        _divide(bottom_up.stem, "out_channels")
        if top_block.get("in_feature") != "p5":
            _divide(top_block, "in_channels")
    if backbone.out_channels == 256:
        if top_block.get("in_feature") == "p5":
            _divide(top_block, "in_channels")
        _divide(top_block, "out_channels")
        _divide(backbone, "out_channels")
        head.input_shape = [ShapeSpec(channels=x.channels // NARROWER) for x in head.input_shape]
        head.conv_dims = [channels // NARROWER for channels in head.conv_dims]
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
