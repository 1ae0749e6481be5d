"""The configs of the project by name."""

from __future__ import annotations

import functools
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from dense_kd import get_config_file

ROOT = Path(get_config_file("quickstart/student.py")).parent.parent
RUNS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).parts[0] != "common"
)
FULL_RUNS = [name for name in RUNS if not name.startswith("quickstart/")]


@functools.cache
def load(name: str) -> DictConfig:
    """The config, which is loaded once and not to be changed."""
    cfg = LazyConfig.load(str(ROOT / name))
    OmegaConf.set_readonly(cfg, True)
    return cfg
