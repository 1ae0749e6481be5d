"""The detectors of ``configs/`` by name, and their published weights, as in detectron2's zoo.

As in::

    from dense_kd import model_zoo

    cfg = model_zoo.get_config("gfl/r50_1x.py", trained=True)
    model = model_zoo.get("gfl/r101_2x_ms.py", trained=True)
"""

from __future__ import annotations

import os

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from .checkpoint import load_strictly
from .config import get_config as _get_config
from .config import get_config_file
from .engine.checks.data import detector_of
from .recipes import PUBLISHED

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file"]


def get_checkpoint_url(config_path: str) -> str:
    """The published weights of a config.

    Args:
        config_path: relative to ``configs/``, as "gfl/r50_1x.py".

    Returns:
        a name that all of this package reads, such as ``mmdet://gfl_r50_fpn_1x_coco``.

    Raises:
        FileNotFoundError: there is no such config.
        RuntimeError: nobody has published any.
    """
    get_config_file(config_path)
    path = os.path.normpath(config_path)
    if path not in PUBLISHED:
        raise RuntimeError(
            f"no weights are published for {path}; `dense-kd list teachers` has those that are. "
            "Train it, and give its model_final.pth"
        )
    return PUBLISHED[path]


def get_config(config_path: str, trained: bool = False) -> DictConfig:
    """A LazyConfig of this project.

    Args:
        config_path: relative to ``configs/``.
        trained: ``train.init_checkpoint`` is the published weights, not those to start from.

    Raises:
        FileNotFoundError, RuntimeError: see :func:`get_checkpoint_url`.
    """
    cfg = _get_config(config_path)
    if trained:
        cfg.train.init_checkpoint = get_checkpoint_url(config_path)
    return cfg


def get(
    config_path: str, trained: bool = False, device: str | torch.device | None = None
) -> nn.Module:
    """A detector of this project; of a distillation, the student.

    Args:
        config_path: relative to ``configs/``.
        trained: with the published weights, which have to fit exactly; otherwise with random ones.
        device: None is the GPU if there is one.

    Returns:
        the detector, in training mode as detectron2's is.

    Raises:
        FileNotFoundError, RuntimeError: see :func:`get_checkpoint_url`.
        CheckpointError: the weights cannot be read.
    """
    cfg = get_config(config_path, trained)
    model: nn.Module = instantiate(detector_of(cfg, "evaluate")[1])
    if trained:
        load_strictly(model, cfg.train.init_checkpoint)
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
