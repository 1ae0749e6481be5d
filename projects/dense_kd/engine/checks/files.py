"""The folder that a run writes to, and the checkpoints that it reads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn

from ...checkpoint import FINAL_CHECKPOINT, places
from ...checkpoint.packages import PACKAGES, not_installed
from ...checkpoint.unnamed import unnamed_checkpoint
from ...checkpoint.writing import printable
from ...checkpoint.zoo import MMDET_URLS, TORCHVISION_URLS
from ...config import config_folder
from ...feature_teacher import FeatureTeacher
from ...teacher import Teacher
from ...timm_models import check_timm_name
from .errors import choice, near
from .tree import calls_of, select, target_of

_ZOOS: dict[str, Mapping[str, Any]] = {
    "mmdet": MMDET_URLS,
    "torchvision": TORCHVISION_URLS,
    "package": PACKAGES,
}
_SCHEMES = (*_ZOOS, "timm", "detectron2", "catalog", "http", "https", "ftp", "file")


def problems(cfg: DictConfig, mode: str, resume: bool) -> Iterator[str]:
    """Those of ``train.output_dir``, ``train.init_checkpoint`` and teachers' files."""
    if mode == "train":
        yield from folder_problems("train.output_dir", cfg.train.get("output_dir"))
        yield from name_problems("train.output_dir", cfg.train.get("output_dir"))
    if mode != "evaluate":
        for place, teacher in calls_of(cfg.model, "model", (Teacher, FeatureTeacher)):
            yield from _teacher(place, teacher)
    source = cfg.train.get("init_checkpoint")
    if mode == "evaluate" and not source:
        yield (
            "train.init_checkpoint is empty, so there is nothing to evaluate; give a checkpoint, "
            f"as in train.init_checkpoint={_last_checkpoint(cfg) or 'output/model_final.pth'}"
        )
    # A resumed run reads its own last checkpoint instead.
    resumes = mode == "train" and resume and _last_checkpoint(cfg)
    if source and mode != "evaluate_teacher" and not resumes:
        yield from _checkpoint("train.init_checkpoint", source)


def folder_problems(place: str, folder: str) -> Iterator[str]:
    """Why files cannot be written to a folder, which may not be there yet.

    Args:
        place: of its name in the config.
        folder: its name.
    """
    if not isinstance(folder, str) or not folder.strip() or "://" in folder:
        return
    problem = places.folder_problem(folder)
    if problem:
        yield f"{place}={folder}: {problem}"


def name_problems(place: str, folder: str) -> Iterator[str]:
    """Why TensorBoard cannot write to a folder, be it for its name or for that of one above.

    Args:
        place, folder: as of :func:`folder_problems`.
    """
    if not isinstance(folder, str) or "://" in folder:
        return
    path = os.path.abspath(folder)
    if path != printable(path):
        yield (
            f"{place}={printable(folder)}: {printable(path)} is no Unicode, which TensorBoard "
            "needs; give another folder, or rename what has bytes instead of letters there"
        )


def _teacher(place: str, teacher: DictConfig) -> Iterator[str]:
    weights = select(teacher, "weights")
    example = f"{place}.weights=output/teacher/model_final.pth"
    if weights == "":
        yield f"{place}.weights is empty, so the student would learn from noise; give {example}"
    elif weights is None and "weights" in teacher:
        model = select(teacher, "model")
        network = target_of(model) if isinstance(model, DictConfig) else None
        if isinstance(network, type) and issubclass(network, nn.Module):
            yield (
                f"{place}.weights is null, so the teacher would be a {network.__name__} with "
                f"random numbers; give its checkpoint, {example} (null is for code that passes "
                "a trained model)"
            )
    elif isinstance(weights, str):
        yield from _checkpoint(f"{place}.weights", weights)
    elif weights is not None:
        yield f"{place}.weights={weights!r}: expected the name of a file, as in {example}"


def _checkpoint(place: str, path: str) -> Iterator[str]:
    scheme, found, name = path.partition("://") if isinstance(path, str) else ("", "", "")
    if found:
        if scheme in _ZOOS and name not in _ZOOS[scheme]:
            yield f"{place}={path}: no such name; {choice(name, _ZOOS[scheme])}"
        elif scheme == "package" and PACKAGES[name].installed() is None:
            yield f"{place}={path}: {not_installed(PACKAGES[name])}"
        elif scheme == "timm":
            yield from _of_timm(place, path, name)
        elif scheme not in _SCHEMES and near(scheme, _SCHEMES):
            yield f"{place}={path}: unknown {scheme}://; {choice(scheme, _SCHEMES)}"
    elif isinstance(path, str) and not os.path.isfile(path):
        problem = "is a folder, expected a file" if os.path.isdir(path) else "does not exist"
        yield f"{place}={path} {problem}; {_what_is_there(path)}{_what_makes(path)}"


def _of_timm(place: str, path: str, name: str) -> Iterator[str]:
    try:
        check_timm_name(name)
    except (ImportError, ValueError) as error:
        yield f"{place}={path}: {error}"


def _what_is_there(path: str) -> str:
    """Of a file that is not there: what else is."""
    absolute = os.path.abspath(path)
    folder = absolute if os.path.isdir(absolute) else os.path.dirname(absolute)
    if not os.path.isdir(folder):
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        return f"looked for the file {absolute}, of whose folders {folder} is the last that exists"
    suffixes = (".pth", ".pkl", ".pt")
    files = [file for file in os.listdir(folder) if file.endswith(suffixes)]
    if folder == absolute:
        return f"it holds {', '.join(sorted(files)) or 'no checkpoint'}"
    hint = f"; {choice(os.path.basename(path), files)}" if files else ""
    return f"looked for the file {absolute}{hint}"


def _what_makes(path: str) -> str:
    """Of a file that is not there: the command, if a config of this project writes it there."""
    parts = Path(os.path.normpath(path)).parts
    config = "/".join(parts[1:-1])
    written = parts[:1] == ("output",) and parts[-1:] == (FINAL_CHECKPOINT,)
    if not (written and (config_folder() / f"{config}.py").is_file()):
        return ""
    return f". `dense-kd train {config}` makes it"


def _last_checkpoint(cfg: DictConfig) -> str | None:
    """The checkpoint that a run in ``train.output_dir`` has written last."""
    folder = select(cfg, "train.output_dir")
    return last_checkpoint(folder) if isinstance(folder, str) else None


def last_checkpoint(folder: str | os.PathLike[str]) -> str | None:
    """The last checkpoint of the run in a folder, wherever that is now; None if there is none."""
    try:
        with open(os.path.join(folder, "last_checkpoint"), errors="replace") as file:
            name = os.path.basename(file.read().strip())
    except OSError:
        name = unnamed_checkpoint(folder)
    return os.path.join(folder, name) if name else None
