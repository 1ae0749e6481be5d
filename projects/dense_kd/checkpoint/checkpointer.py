"""A checkpointer whose files are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from .errors import CheckpointError, listed
from .formats import convert
from .writing import remove_abandoned, replace_atomically


class AtomicCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer, writing to a temporary name first.

    A run that is killed while it saves leaves the previous checkpoint and ``last_checkpoint``
    as they were. Numbers that are not finite are never saved. Reading errors name the file.
    Checkpoints of mmdetection and torchvision are converted.
    """

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.pth`` and point ``last_checkpoint`` to it.

        Raises:
            FloatingPointError: lists the tensors that are not finite; the files are as before.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        content = {"model": self.model.state_dict()}
        content.update({key: item.state_dict() for key, item in self.checkpointables.items()})
        content.update(kwargs)
        bad = list(_not_finite(content))
        if bad:
            lines = [f"{name}.pth is not written: not finite are {len(bad)} tensors of it:"]
            lines += [f"    {key}" for key in listed(bad)]
            lines.append(f"Earlier checkpoints in {self.save_dir} are as they were.")
            raise FloatingPointError("\n".join(lines))
        if not os.path.isdir(self.save_dir):  # a remote folder of the PathManager
            super().save(name, **kwargs)
            return
        remove_abandoned(self.save_dir, r".*\.pth|last_checkpoint")
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


def _not_finite(content: Any, place: str = "") -> Iterator[str]:
    """Where nested containers hold tensors that are not finite."""
    if isinstance(content, torch.Tensor):
        if content.is_floating_point() and not torch.isfinite(content).all():
            yield place
    elif isinstance(content, (Mapping, list, tuple)):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, value in items:
            yield from _not_finite(value, f"{place}.{key}" if place else str(key))
