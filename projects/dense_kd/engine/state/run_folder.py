"""Whether a run may begin or go on in its ``train.output_dir``, and with what changes."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig

from ...arguments import is_integer
from ...checkpoint import METHOD_PREFIX, CheckpointError
from ...checkpoint.unnamed import LAST, checkpoint_to_resume, unnamed_checkpoint
from ...feature_teacher import FeatureTeacher
from ...teacher import Teacher
from ..checks.tree import calls_of, select
from ..drawn_maps import FOLDER, remove_drawn
from .run_summary import read_summary
from .stored_config import at, config_changes
from .stored_teachers import TeacherFiles, changed_files

logger = logging.getLogger("dense_kd")

_CURVES = re.compile(r"metrics\.json|events\.out\.tfevents\..*")
# Changed settings that a resumed run does not go by.
_NOT_USED = {
    "train.seed": "the generators go on where they were",
    "train.init_checkpoint": "the weights are the checkpoint's",
    "train.init_partial": "the weights are the checkpoint's",
    "dataloader.train.seed": "the order of the images goes on",
    "dataloader.unlabelled.seed": "the order of the images goes on",
}
_CLASS = re.compile(r"(model(\..+)?|optimizer)\._target_")
_OF_A_METHOD = re.compile(r"model\.methods\.(\w+)(\..+)?")


def problems(cfg: DictConfig, resume: bool) -> list[str]:
    """Why a run cannot begin, or go on, in ``cfg.train.output_dir``.

    There is a run already, and ``train.overwrite`` does not give it up; or what is to be resumed
    is another run, has more iterations, or has no checkpoint that can be read. Of several
    processes, which must all call this, the first one looks.

    Args:
        cfg: of the run, with valid values.
        resume: go on where the run of this folder stopped.
    """
    found: list[str] = []
    if comm.is_main_process():
        found = [*(_when_resuming if resume else _when_beginning)(cfg)]
    return comm.all_gather(found)[0]


def remarks(cfg: DictConfig, resume: bool, teachers: TeacherFiles | None = None) -> str:
    """What to warn of where there are no :func:`problems`; "" if nothing.

    Above all what a resumed run does otherwise than before.

    Args:
        cfg, resume: see there.
        teachers: their files, which are compared with those of the checkpoint; None: they are not.
    """
    folder = cfg.train.output_dir
    if not resume:
        if not _has_last(folder) and any(_CURVES.fullmatch(name) for name in _files(folder)):
            return f"{folder} has metrics of a run without a checkpoint; this run's follow them"
        return ""
    last = checkpoint_to_resume(folder)
    if not last:
        return f"--resume: {folder} has no checkpoint, so the run begins at iteration 0"
    path = os.path.join(folder, last)
    run = read_summary(path)
    if run.config is None:
        return f"{path} does not hold the config of its run: whether this one differs is unknown"
    of_config = config_changes(run.config, cfg)
    changes = {**changed_files(run.teachers, teachers or {}), **of_config}
    if not changes:
        return ""
    other = "another config" if of_config else "another teacher"
    if run.done == cfg.train.max_iter:
        what = f"All {run.done} iterations are done, so {other} changes nothing"
    else:
        what = f"Going on after {run.done} iterations with {other}"
    return f"{what} ({path} -> this run):\n{_listed(changes)}"


def clear(cfg: DictConfig) -> None:
    """Remove checkpoints, curves and maps of the run that ``train.overwrite`` gives up."""
    if not (cfg.train.get("overwrite", False) and comm.is_main_process()):
        return
    folder = cfg.train.output_dir
    names = _checkpoints(cfg)
    names += [name for name in _files(folder) if name == LAST or _CURVES.fullmatch(name)]
    for name in names:
        PathManager.rm(os.path.join(folder, name))
    names += [FOLDER] if remove_drawn(Path(folder)) else []
    if names:
        logger.warning(f"train.overwrite=True: removed {', '.join(sorted(names))} of {folder}")


def _when_beginning(cfg: DictConfig) -> Iterator[str]:
    folder, checkpoints = cfg.train.output_dir, _checkpoints(cfg)
    if not checkpoints and not _has_last(folder):
        return
    if not cfg.train.get("overwrite", False):
        yield (
            f"train.output_dir={folder} holds {_describe(cfg, checkpoints)}. Go on with it "
            "(--resume), give this run a folder of its own (train.output_dir=...), or give up the "
            "one that is there (train.overwrite=True removes its checkpoints and metrics)"
        )
        return
    removed = {os.path.realpath(os.path.join(folder, name)) for name in checkpoints}
    teachers = calls_of(cfg.model, "model", (Teacher, FeatureTeacher))
    for place in ("train.init_checkpoint", *(f"{each}.weights" for each, _ in teachers)):
        file = select(cfg, place)
        if isinstance(file, str) and os.path.realpath(file) in removed:
            yield (
                f"train.overwrite=True would remove {place}={file}, which this run needs; give "
                "it another train.output_dir"
            )


def _when_resuming(cfg: DictConfig) -> Iterator[str]:
    folder, checkpoints = cfg.train.output_dir, _checkpoints(cfg)
    if cfg.train.get("overwrite", False):
        yield (
            "--resume goes on with the run of train.output_dir, train.overwrite=True gives it up; "
            "use one of them"
        )
    there = f"there is {', '.join(checkpoints) or 'no checkpoint'}"
    try:
        last = checkpoint_to_resume(folder)
    except CheckpointError as error:
        yield (
            f"--resume: {error}, or begin again (without --resume, with train.overwrite=True); "
            f"{there}"
        )
        return
    if not last and checkpoints:
        yield (
            f"train.output_dir={folder} has {', '.join(checkpoints)}, but no {LAST}, a file with "
            "the name of the one to resume from: write that name into it, or begin again (without "
            "--resume, with train.overwrite=True)"
        )
    if not last:
        return
    path = os.path.join(folder, last)
    try:
        run = read_summary(path)
    except CheckpointError as error:
        yield f"--resume: {error}. {os.path.join(folder, LAST)} names this file; {there}"
        return
    if run.done is None:
        yield (
            f"--resume: {path} holds weights without the state of a training run; start from it "
            "with train.init_checkpoint, without --resume"
        )
        return
    if run.done > cfg.train.max_iter:
        yield (
            f"--resume: {path} has {run.done} iterations behind it, train.max_iter="
            f"{cfg.train.max_iter} has fewer; give a larger one"
        )
    changes = {} if run.config is None else config_changes(run.config, cfg)
    other = {k: v for k, v in changes.items() if _is_another_run(k, run.keys)}
    if other:
        yield (
            f"--resume: train.output_dir={folder} holds another run, which this config cannot "
            f"continue ({path} -> this run):\n{_listed(other)}\n    Resume it with its own "
            "config, or give this run a train.output_dir of its own, without --resume"
        )


def _is_another_run(name: str, keys: Iterable[str]) -> bool:
    """Whether a changed setting makes the tensors of the checkpoint mean something else."""
    method = _OF_A_METHOD.fullmatch(name)
    if method:
        replaced = not method[2] or method[2] in ("._target_", ".method", ".method._target_")
        prefix = f"{METHOD_PREFIX}{method[1]}."
        return replaced and any(key.startswith(prefix) for key in keys)
    return bool(_CLASS.fullmatch(name)) and not name.startswith("model.teacher.")


def _listed(changes: Mapping[str, str]) -> str:
    return "\n".join(
        f"      {name}: {change}" + (f" (not used: {_NOT_USED[name]})" if name in _NOT_USED else "")
        for name, change in changes.items()
    )


def _describe(cfg: DictConfig, checkpoints: list[str]) -> str:
    """The run of a folder, in words; also if its checkpoint cannot be read any more."""
    try:
        last = checkpoint_to_resume(cfg.train.output_dir)
    except CheckpointError:
        return f"a run whose {LAST} names no file ({', '.join(checkpoints) or 'nor is there one'})"
    if last not in checkpoints:
        return f"checkpoints ({', '.join(checkpoints) or last})"
    try:
        run = read_summary(os.path.join(cfg.train.output_dir, last))
    except CheckpointError:
        return f"a run whose last checkpoint, {last}, cannot be read"
    if run.config is None or run.done is None:
        return f"a run ({last})"
    planned = at(run.config, "train.max_iter")
    state, iterations = "a run", f"{run.done}"
    if is_integer(planned):  # or it refers to what is not there
        state = "a finished run" if run.done >= planned else "an unfinished run"
        iterations = f"{run.done} of {planned}"
    changes = config_changes(run.config, cfg)
    of_another = f" of another config (its -> this):\n{_listed(changes)}\n" if changes else ""
    return f"{state} ({last}, {iterations} iterations){of_another}"


def _has_last(folder: str) -> bool:
    return PathManager.isfile(os.path.join(folder, LAST)) or bool(unnamed_checkpoint(folder))


def _checkpoints(cfg: DictConfig) -> list[str]:
    prefix = re.escape(cfg.train.checkpointer.get("file_prefix", "model"))
    pattern = re.compile(rf"{prefix}_(\d{{7,}}|final|best)\.pth")
    return sorted(name for name in _files(cfg.train.output_dir) if pattern.fullmatch(name))


def _files(folder: str) -> list[str]:
    return PathManager.ls(folder) if PathManager.isdir(folder) else []
