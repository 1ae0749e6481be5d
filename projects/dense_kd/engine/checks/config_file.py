"""The config file of the command line, and what to say when it cannot be loaded."""

from __future__ import annotations

import builtins
import os
import traceback
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import LazyConfig
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig

from ... import config as project
from ...data import DatasetError
from ...data.of_distillation import register_beside
from .data import dataset_names
from .errors import RunError, near
from .overrides import apply_overrides
from .tree import PARTS, has_entries

_EXAMPLE = "quickstart/distill.py, or the path of a file"
_PACKAGE = "detectron2._cfg_loader"  # in which detectron2 runs config files
_SUFFIXES = (".py", ".yaml", ".yml")
_YACS_KEYS = {"_BASE_", "VERSION", "MODEL", "DATASETS", "DATALOADER", "SOLVER", "INPUT", "TEST"}


def config_path(path: str) -> str:
    """The file of a LazyConfig.

    Args:
        path: of a file, or the name of a config of the project, see
            :func:`dense_kd.config.find_config`.

    Raises:
        RunError: there is none; the message names those that are near.
    """
    found = path if not path or "://" in path else project.find_config(path) or path
    problem = _no_file(found)
    if problem:
        raise RunError([problem])
    return found


def load_config(path: str, overrides: Sequence[str] = ()) -> DictConfig:
    """A LazyConfig, with overrides as ``train.max_iter=100``.

    The ``config.yaml`` of a run of ``dense-kd distill`` has its datasets registered, too.

    Args:
        path: as of :func:`config_path`.
        overrides: of its entries.

    Raises:
        RunError: the file is missing, no LazyConfig or raises when it is run, or an override
            reaches nothing.
    """
    path = config_path(path)
    importer = builtins.__import__
    try:
        cfg = LazyConfig.load(path)
    except Exception as error:  # a config is code
        raise RunError([f"{_place(error, path)}: {type(error).__name__}: {error}"]) from error
    finally:
        builtins.__import__ = importer  # detectron2 leaves its own there if the config raises
    if not isinstance(cfg, DictConfig) or not has_entries(cfg):
        raise RunError([f"{path} holds no entries; expected a LazyConfig with {', '.join(PARTS)}"])
    if _YACS_KEYS & set(cfg) and not set(PARTS) & set(cfg):
        raise RunError(
            [
                f"{path} is a yacs config; expected a LazyConfig with {', '.join(PARTS)}. "
                "dense_kd.add_dense_kd_config makes yacs configs work in detectron2's own "
                "train_net.py"
            ]
        )
    try:
        names = [x for part in ("train", "test", "unlabelled") for x in dataset_names(cfg, part)]
        register_beside(Path(path), names)
    except DatasetError as error:
        raise RunError([f"{path}: {error}"]) from error
    return apply_overrides(cfg, overrides)


def _no_file(path: str) -> str | None:
    if not path:
        return f"no config is given; expected the name of one, as {_EXAMPLE}"
    if "://" in path:
        return None
    if os.path.isdir(path):
        configs = sorted(file for file in os.listdir(path) if file.endswith(".py"))
        return f"the config {path} is a folder; it holds {', '.join(configs) or 'no config'}"
    if not PathManager.isfile(path):
        meant = _similar(path)
        hint = f"did you mean {' or '.join(meant)}?" if meant else f"expected one as {_EXAMPLE}"
        return f"the config {path} does not exist (here is {os.getcwd()}); {hint}"
    if not path.endswith(_SUFFIXES):
        return f"the config {path}: expected a LazyConfig, a .py (or a .yaml that one was saved as)"
    return None


def _similar(path: str) -> list[str]:
    """Files with a name like that beside it, or else names of configs of the project."""
    folder = Path(path).parent
    files = [str(folder / f.name) for f in folder.glob("*.py")] if folder.is_dir() else []
    found = near(path, files)
    if found:
        return found
    dirs = [d for d in project._config_dirs(Path(project.__file__).resolve().parent) if d.is_dir()]
    return project._close_matches(path.split("configs/", 1)[-1], dirs)


def _place(error: Exception, path: str) -> str:
    """The innermost line of a config file on the way to an error."""
    if isinstance(error, SyntaxError):
        syntax = error.__cause__ if isinstance(error.__cause__, SyntaxError) else error
        return f"{path}, line {syntax.lineno}"
    places = [
        f"{frame.f_code.co_filename}, line {line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__package__")).startswith(_PACKAGE)
    ]
    return places[-1] if places else path
