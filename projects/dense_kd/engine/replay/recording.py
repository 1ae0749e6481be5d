"""What a step began with, so that it can be run again if it goes wrong."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ... import compat
from ...checkpoint import replace_atomically
from ...checkpoint.layouts.wrappers import clean_state, unwrapped
from ...description import IndescribableError, describe
from ...random_state import RandomState
from ..buffers import KeptBuffers
from ..ranks.errors import error_text
from ..state.stored_teachers import TeacherFiles
from .batches import to_plain

__all__ = ["FOLDER", "FORMAT", "StepRecorder", "described_step"]

FOLDER = "replay"
"""Of a run's folder; in it are ``step_<iteration>.pth``, of several processes with the rank."""

FORMAT = 2
"""Of a file; it changes when an entry changes its meaning, goes or comes."""

KEPT = 3  # files of a process

_OF_TRAIN = (
    "amp", "accumulate", "normalize", "compile_losses", "channels_last", "quantization_aware",
)  # fmt: skip

logger = logging.getLogger("dense_kd")


class StepRecorder:
    """Keeps what the step that is running began with.

    That is cheap: batches are held and not copied, states of generators take a fifth of a
    millisecond, and of the buffers those are copied that have changed.
    """

    def __init__(self, model: nn.Module):
        """
        Args:
            model: that is trained, maybe in DDP.
        """
        self._model = unwrapped(model)
        self._folder: Path | None = None
        self._describe: Callable[[], dict[str, Any]] = dict
        self._buffers: KeptBuffers | None = None  # until a step begins
        self._batches: list[Any] = []
        self._random: list[RandomState] = []

    def keep_in(self, folder: str, describe: Callable[[], dict[str, Any]]) -> None:
        """From now on, :meth:`save` writes files.

        Args:
            folder: of the run.
            describe: makes what :func:`described_step` does.
        """
        self._folder, self._describe = Path(folder, FOLDER), describe

    def begin(self) -> None:
        """A step begins."""
        self._batches, self._random = [], []
        if self._buffers is None:
            self._buffers = KeptBuffers(self._model)
        else:
            self._buffers.keep()

    @property
    def batches(self) -> list[Any]:
        """Of the step that is running, so far."""
        return self._batches

    def batch(self, data: Any) -> None:
        """The pass of a batch begins."""
        self._batches.append(data)
        self._random.append(RandomState.now())

    def end(self) -> None:
        """The step went well."""
        self._batches, self._random = [], []

    def undo(self) -> None:
        """Give the buffers the values that the step began with."""
        if self._buffers is not None:
            self._buffers.restore()

    def save(self, iteration: int, error: BaseException, scale: float = 1.0) -> str:
        """Write a file, and remove older ones; what goes wrong is logged, and nothing else.

        Args:
            iteration: of the step.
            error: what came of it.
            scale: of the gradients.

        Returns:
            its path; "" if none was written.
        """
        if self._folder is None:
            return ""
        several = comm.get_world_size() > 1
        rank = f"_rank{comm.get_rank()}" if several else ""
        path = self._folder / f"step_{iteration:07d}{rank}.pth"
        buffers = self._buffers.named() if self._buffers is not None else {}
        content = {
            "replay": FORMAT,
            "iteration": iteration,
            "rank": comm.get_rank(),
            "num_processes": comm.get_world_size(),
            "error": error_text(error),
            "versions": {key: str(value) for key, value in compat.versions().items()},
            "device": str(_device(self._model)),
            "scale": scale,
            "model": {key: value.detach().cpu() for key, value in clean_state(self._model).items()},
            "buffers": {name: value.cpu() for name, value in buffers.items()},
            "random": [state.plain() for state in self._random],
            "batches": [to_plain(batch) for batch in self._batches],
        }
        try:
            content.update(self._describe())
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_atomically(str(path), lambda file: torch.save(content, file))
            _remove_old(self._folder, rank)
        except Exception as failure:
            logger.warning(f"The step is not kept for `dense-kd replay`: {failure}")
            return ""
        logger.warning(f"The step is kept: dense-kd replay {path}")
        return str(path)


def described_step(cfg: DictConfig, teachers: TeacherFiles) -> dict[str, Any]:
    """What a run's config says of how a step is computed.

    Args:
        cfg: with ``model`` and ``train``.
        teachers: their files, as they were when the run read them.

    Returns:
        "description" of the model (None with a reason in "incomplete", if it holds what no text
        says how to make), "teachers" (of each its file and the digest of it) and "train".
    """
    train = OmegaConf.to_container(cfg.train, resolve=True)
    found: dict[str, Any] = {
        "description": None,
        "incomplete": "",
        "teachers": teachers,
        "train": {key: train[key] for key in _OF_TRAIN if key in train},
    }
    try:
        found["description"] = describe(cfg.model, "model")
    except IndescribableError as error:
        found["incomplete"] = str(error)
    return found


def _remove_old(folder: Path, rank: str) -> None:
    pattern = re.compile(rf"step_\d{{7,}}{rank}\.pth")
    ours = [path for path in folder.iterdir() if pattern.fullmatch(path.name)]
    for path in sorted(ours, key=lambda path: path.stat().st_mtime_ns)[:-KEPT]:
        path.unlink(missing_ok=True)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
