"""Files of a run beside its checkpoints: its config, and the curves that hooks write."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from detectron2.engine import default_writers, hooks
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig

from ..checkpoint import SaveError, replace_atomically, saving

__all__ = ["MetricsWriter", "save_config"]

METRICS = "metrics.json"


class MetricsWriter(hooks.PeriodicWriter):
    """detectron2's, for the terminal, ``metrics.json`` and TensorBoard.

    Where a file cannot be written it raises a :class:`SaveError`. A line that an earlier run could
    not finish stays alone on its line.
    """

    def __init__(self, folder: str, max_iter: int, period: int):
        """
        Args:
            folder: of the run.
            max_iter: iterations of the run.
            period: in iterations.
        """
        self._place = str(Path(folder, METRICS))
        self._failed = False
        with saving(self._place):
            _end_line(Path(folder, METRICS))
            super().__init__(default_writers(folder, max_iter), period)

    def after_step(self) -> None:
        """Write, in one of those iterations."""
        with self._noting():
            super().after_step()

    def after_train(self) -> None:
        """Write what there is, and close the files."""
        if self._failed:  # which is being said
            for writer in self._writers:
                with contextlib.suppress(Exception):
                    writer.close()
            return
        with self._noting():
            super().after_train()

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            with saving(self._place):
                yield
        except SaveError:
            self._failed = True
            raise


def save_config(cfg: DictConfig, path: str) -> None:
    """Write a config as ``LazyConfig.save`` does, whole or not at all.

    Raises:
        SaveError: it cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        LazyConfig.save(cfg, str(Path(folder, "config.yaml")))
        for file in sorted(Path(folder).iterdir()):  # what YAML cannot hold is pickled beside it
            target = path + file.name[len("config.yaml") :]
            content = file.read_bytes()
            if "://" in path:
                with PathManager.open(target, "wb") as remote:
                    remote.write(content)
            else:
                replace_atomically(target, _writing(content))


def _writing(content: bytes) -> Any:
    return lambda file: file.write(content)


def _end_line(file: Path) -> None:
    """End the last line of a file, if its writer could not."""
    if not file.is_file() or not file.stat().st_size:
        return
    with open(file, "rb+") as stream:
        stream.seek(-1, 2)
        if stream.read(1) != b"\n":
            stream.write(b"\n")
