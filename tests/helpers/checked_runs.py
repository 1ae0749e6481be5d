"""Configs that can run on a few generated images, for checks that spoil one thing at a time."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig

from dense_kd import get_config_file
from dense_kd.data import generate_shapes, register_shapes
from dense_kd.engine import RunError, check_run, load_config
from dense_kd.engine.checks.overrides import apply_overrides

DATA = (
    "dataloader.train.dataset.names=checked_train",
    "dataloader.test.dataset.names=checked_val",
    "dataloader.train.total_batch_size=2",
    "train.max_iter=1",
)


def register(root: Path) -> None:
    for split in ("train", "val"):
        generate_shapes(root, split, 4, image_size=(64, 64))
        register_shapes(f"checked_{split}", root, split)


def unregister(*names: str) -> None:
    for name in names or ("checked_train", "checked_val"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@functools.cache
def _loaded(config: str) -> DictConfig:
    return load_config(get_config_file(config))


def load(*overrides: str, config: str = "quickstart/student.py") -> DictConfig:
    return apply_overrides(copy.deepcopy(_loaded(config)), [*DATA, *overrides])


def problems(*overrides: str, config: str = "quickstart/student.py", mode: str = "train", **more):
    """What is wrong with a run of a config with these overrides."""
    try:
        check_run(load(*overrides, config=config), mode, **more)
    except RunError as error:
        return error.problems
    return []
