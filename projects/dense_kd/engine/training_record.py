"""What the training in a folder was made with, and how that differs from what is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ..checkpoint import write_text
from .state.stored_config import config_of_text, differences, plain_config

__all__ = ["RECORD", "TrainingRecord", "holds_weights", "read_record", "write_record"]

RECORD = "training.json"

_CONFIG = "config"
# Places, and what decides how fast a training is and how often it is kept.
_WITHOUT_EFFECT = (
    "config.train.output_dir",
    "config.train.checkpointer.period",
    "config.train.checkpointer.max_to_keep",
    *(f"config.dataloader.{part}.num_workers" for part in ("train", "test", "unlabelled")),
)
_DIGESTS = ("code", "data", "weights", "teacher")


@dataclass(frozen=True)
class TrainingRecord:
    """
    Attributes:
        finished: when, None if it is not.
        seconds: wall-clock time of its last process.
        settings: all that its result depends on; {} if they cannot be read.
    """

    finished: str | None
    seconds: float
    settings: Mapping[str, Any]

    def changes(self, settings: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, str]:
        """What is other than in ``settings``, but for what changes no result.

        Args:
            settings: of a training that would be in its place.
            without: dotted names of entries that may differ, such as ``config.train.seed``.

        Returns:
            {dotted name: "there -> now", "" where only digests differ}.
        """
        left_out = (*_WITHOUT_EFFECT, *without)
        return {
            name: "" if name.split(".")[0] in _DIGESTS else change
            for name, change in differences(_opened(self.settings), _opened(settings)).items()
            if not any(name == part or name.startswith(f"{part}.") for part in left_out)
        }


def read_record(folder: Path) -> TrainingRecord | None:
    """That of a folder; None if there is none."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        settings = record["settings"]
        if isinstance(settings, dict):
            return TrainingRecord(record["finished"], float(record["seconds"]), settings)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return TrainingRecord(None, 0.0, {})


def write_record(folder: Path, record: TrainingRecord) -> None:
    """Write it into a folder."""
    content = {
        "finished": record.finished,
        "seconds": record.seconds,
        "settings": record.settings,
    }
    write_text(folder / RECORD, json.dumps(content, indent=2) + "\n")


def holds_weights(folder: Path) -> bool:
    """Whether a training has come so far there that it has left something."""
    return any(folder.glob("*.pth"))


def _opened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """With the entries of the config that a run reads."""
    text = settings.get(_CONFIG)
    if not isinstance(text, str):
        return dict(settings)
    try:
        content = config_of_text(text)
        plain = plain_config(DictConfig(content)) if isinstance(content, dict) else text
    except (ValueError, yaml.YAMLError, OmegaConfBaseException):
        plain = text
    return {**settings, _CONFIG: plain}
