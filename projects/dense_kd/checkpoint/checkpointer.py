"""A checkpointer whose files are whole or absent."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, Callable

import torch
from detectron2.checkpoint import DetectionCheckpointer

from .errors import CheckpointError
from .formats import convert


class AtomicCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer, writing to a temporary name first.

    A run that is killed while it saves leaves the previous checkpoint and ``last_checkpoint``
    as they were. Reading errors name the file. Checkpoints of mmdetection and torchvision are
    converted.
    """

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.pth`` and point ``last_checkpoint`` to it."""
        if not self.save_dir or not self.save_to_disk:
            return
        if not os.path.isdir(self.save_dir):  # a remote folder of the PathManager
            super().save(name, **kwargs)
            return
        content = {"model": self.model.state_dict()}
        content.update({key: item.state_dict() for key, item in self.checkpointables.items()})
        content.update(kwargs)
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        replace_atomically(path, lambda file: torch.save(content, file))
        self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        path = os.path.join(self.save_dir, "last_checkpoint")
        if not os.path.isdir(self.save_dir):
            super().tag_last_checkpoint(last_filename_basename)
            return
        replace_atomically(path, lambda file: file.write(last_filename_basename.encode()))

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return super().load(path, *args, **kwargs)
        except CheckpointError:
            raise
        except Exception as error:  # torch raises many kinds for a damaged file
            raise CheckpointError(
                f"{path} could not be loaded: {type(error).__name__}: {error}. Give a checkpoint "
                "that is there and whole, such as an earlier one of the run"
            ) from error

    def _load_file(self, filename: str) -> dict[str, Any]:
        loaded = super()._load_file(filename)
        conversion = convert(loaded["model"], source=filename)  # or all of a file without "model"
        if conversion is not None:
            loaded["model"] = conversion.weights
        return loaded


def replace_atomically(path: str, write: Callable[[BinaryIO], Any]) -> None:
    """Let ``write`` fill a file that appears under ``path`` only when it is whole and on disk."""
    temporary = f"{path}.tmp{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
