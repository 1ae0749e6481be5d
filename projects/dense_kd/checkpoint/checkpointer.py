"""A checkpointer whose files are whole or absent."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from .classes import check_class_names, class_names
from .errors import CheckpointError, UnreadableError, listed
from .fitting import (
    NOT_IN_MODEL,
    check_finite,
    check_initial,
    check_resumed,
    not_finite,
    run_state_keys,
)
from .layouts.formats import convert, convert_state, is_ours, model_state
from .layouts.wrappers import CONTAINERS, clean_state, is_run_state, names_in, unwrapped
from .reading.weights import read_content, weights_of
from .unnamed import checkpoint_to_resume, unnamed_checkpoint
from .writing import remove_abandoned, replace_atomically, saving, write_text

logger = logging.getLogger(__name__)

FINAL_CHECKPOINT = "model_final.pth"
"""What a training saves at its end, in its folder."""


class _SafeFiles(Checkpointer):
    """What detectron2's checkpointer asks for a file and a model, instead of fvcore's.

    Attributes:
        given: the keys of the last file, under the names of the model.
        class_names: those that it says.
    """

    given: set[str]
    class_names: list[str] | None

    def _load_file(self, f: str) -> dict[str, Any]:
        content = read_content(f)
        self.class_names = class_names(content)
        return _with_model(content, f, self.model)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        self.given = set(checkpoint["model"])  # modules may fill in what is not there
        return super()._load_model(checkpoint)


class AtomicCheckpointer(DetectionCheckpointer, _SafeFiles):
    """detectron2's checkpointer, writing to a temporary name first and reading safely.

    A run that is killed while it saves leaves the previous checkpoint and ``last_checkpoint``
    as they were. Numbers that are not finite are neither saved nor trained from. No file can run
    code. Checkpoints of other projects are converted, and what wraps a model (DDP, torch.compile)
    is in no key. A model that starts from a file must have much of it, and one that resumes all:
    see :mod:`.fitting`. One that starts has nothing of the state of the run that wrote the file,
    see :func:`.layouts.wrappers.is_run_state` and ``DenseDetector.optional_buffers``.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        partial: bool = False,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ):
        """
        Args:
            model, save_dir, save_to_disk, checkpointables: see DetectionCheckpointer.
            partial: start from a file of which little fits, ``train.init_partial``.
        """
        super().__init__(unwrapped(model), save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.partial = partial
        self.source = ""
        self._resuming = False

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.pth`` and point ``last_checkpoint`` to it.

        Raises:
            FloatingPointError: lists what is not finite; the files are as before.
            SaveError: the disk is full, or the folder cannot be written to; likewise.
        """
        if self.save_dir and self.save_to_disk:
            self._write(name, kwargs)
            self.tag_last_checkpoint(f"{name}.pth")

    def save_beside(self, name: str, **kwargs: Any) -> None:
        """:meth:`save`, but ``last_checkpoint`` stays as it is."""
        if self.save_dir and self.save_to_disk:
            self._write(name, kwargs)

    def _write(self, name: str, more: Mapping[str, Any]) -> None:
        content = {"model": clean_state(self.model)}
        content.update({key: item.state_dict() for key, item in self.checkpointables.items()})
        content.update(more)
        bad = list(not_finite(content))
        if bad:
            lines = [f"{name}.pth is not written: not finite are {len(bad)} values of it:"]
            lines += [f"    {key}" for key in listed(bad)]
            lines.append(f"Earlier checkpoints in {self.save_dir} are as they were.")
            raise FloatingPointError("\n".join(lines))
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        if _is_remote(self.save_dir):
            with self.path_manager.open(path, "wb") as remote:
                torch.save(content, remote)
            return
        with saving(path):
            remove_abandoned(self.save_dir, r".*\.pth|last_checkpoint")
        replace_atomically(path, lambda file: torch.save(content, file))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Point ``last_checkpoint`` to a file of the folder; it is replaced whole."""
        path = os.path.join(self.save_dir, "last_checkpoint")
        if _is_remote(self.save_dir):
            super().tag_last_checkpoint(last_filename_basename)
            return
        write_text(path, last_filename_basename)

    def has_checkpoint(self) -> bool:
        """Whether there is one to go on from."""
        return super().has_checkpoint() or bool(unnamed_checkpoint(self.save_dir))

    def get_checkpoint_file(self) -> str:
        """The file that ``last_checkpoint`` points to, or else the only one; "" without one.

        Raises:
            CheckpointError: it holds no name.
        """
        name = checkpoint_to_resume(self.save_dir)
        return os.path.join(self.save_dir, name) if name else ""

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Go on from the last checkpoint, which must fit exactly, or start from ``path``."""
        self._resuming = resume and self.has_checkpoint()
        unnamed = unnamed_checkpoint(self.save_dir) if self._resuming else ""
        try:
            rest = super().resume_or_load(path, resume=resume)
        finally:
            self._resuming = False
        if unnamed and self.save_to_disk:  # or there would be two after the next save
            self.tag_last_checkpoint(unnamed)
        return rest

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Fill the model, and what is saved beside it, from a file.

        Returns:
            what the file holds besides.

        Raises:
            CheckpointError: it cannot be read, or does not fit.
        """
        self.source = path
        try:
            rest = super().load(path, *args, **kwargs)
            self._check_finite()
            return rest
        except Exception as error:  # what a damaged file gives, or another optimizer's state
            if isinstance(error, CheckpointError) and not isinstance(error, UnreadableError):
                if str(path) in str(error):
                    raise
                raise CheckpointError(f"{path}: {error}") from error
            raise CheckpointError(
                f"{path} could not be loaded: {type(error).__name__}: {error}. Give a checkpoint "
                "that is there and whole, such as an earlier one of the run"
            ) from error
        finally:
            self._parsed_url_during_load = None  # left over by detectron2 main after an error

    def _load_file(self, filename: str) -> dict[str, Any]:
        # detectron2 goes by these extensions, and unpickles.
        if not filename.endswith((".pkl", ".pyth")):
            return super()._load_file(filename)
        content = read_content(filename)
        self.class_names = class_names(content)
        if filename.endswith(".pyth"):
            state = _without_counters(_with_model(content, filename, self.model)["model"])
            return {"model": state, **_BY_NAMES, "__author__": "pycls"}
        if isinstance(content, Mapping) and not any(name in content for name in CONTAINERS):
            blobs = content.get("blobs", content)  # Detectron's detectors have them
            state = {k: v for k, v in blobs.items() if not k.endswith("_momentum")}
            if convert(state, source=filename) is None and not is_ours(state):
                return {"model": state, **_BY_NAMES, "__author__": "Caffe2"}
        return _with_model(content, filename, self.model)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        if not self._resuming:
            of_model = run_state_keys(self.model)
            checkpoint["model"] = _without_run_state(checkpoint["model"], of_model, self.source)
        names = names_in(self.model)
        if any(key != name for key, name in names.items()):
            checkpoint["model"] = {names.get(k, k): v for k, v in checkpoint["model"].items()}
        incompatible = super()._load_model(checkpoint)
        shapes = {k: (expected, found) for k, found, expected in incompatible.incorrect_shapes}
        missing = [k for k, name in names.items() if name not in self.given or name in shapes]
        unused = {
            **dict.fromkeys(incompatible.unexpected_keys, NOT_IN_MODEL),
            **{k: f"expected {a}, found {b}" for k, (a, b) in shapes.items()},
        }
        if self._resuming:
            check_resumed(self.model, self.source, missing=missing, unused=unused)
        else:
            check_initial(
                self.model, self.source, missing=missing, unused=unused, partial=self.partial
            )
            self._warn_of_classes()
        check_finite(self.model, self.source)
        return incompatible

    def _check_finite(self) -> None:
        """Of what goes on beside the model: the optimizer's moments, the trainer's normalisers."""
        bad = list(not_finite({k: item.state_dict() for k, item in self.checkpointables.items()}))
        if bad:
            lines = [f"{self.source} cannot be trained on from: not finite are {len(bad)} values:"]
            lines += [f"    {key}" for key in listed(bad)]
            lines.append("Take an earlier checkpoint of that run.")
            raise CheckpointError("\n".join(lines))

    def _warn_of_classes(self) -> None:
        try:
            check_class_names(self.model, self.class_names, self.source)
        except CheckpointError as error:
            logger.warning(f"{error}: its head means other classes than the model's")


_BY_NAMES = {"matching_heuristics": True}
"""Tells detectron2's checkpointer to look for similar names."""


def _with_model(content: Any, source: str, model: nn.Module) -> dict[str, Any]:
    """The content of a file with its weights, under the keys of ``model``, as "model"."""
    state = model_state(content, source=source)
    if state is None:
        state = weights_of(content, source)  # an error, which says what it is
    conversion = convert_state(state, model=clean_state(model), source=source)
    if conversion is not None:
        return {"model": conversion.weights}
    if isinstance(content.get("model"), Mapping):
        return {**content, "model": state}
    return {"model": state}


def _is_remote(folder: str) -> bool:
    """Whether only a PathManager reaches it."""
    return "://" in folder and not os.path.isdir(folder)


def _without_run_state(state: Mapping[str, Any], of_model: set[str], source: str) -> dict[str, Any]:
    """The weights; neither :func:`is_run_state` nor the keys ``of_model`` that are such, too."""
    left_out = [key for key in state if key in of_model or is_run_state(key)]
    if left_out:
        logger.info(
            f"{source}: a run that starts from it has weights alone, and not the state of the run "
            f"that wrote it: {', '.join(listed(left_out))}"
        )
    return {key: value for key, value in state.items() if key not in left_out}


def _without_counters(state: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
