"""What the last checkpoint of a run says of it, read once for all that ask."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detectron2.utils.file_io import PathManager

from ...arguments import is_integer
from ...checkpoint import read_content
from .stored_teachers import ENTRY as TEACHERS


@dataclass(frozen=True)
class RunSummary:
    """All of a checkpoint but its tensors.

    Attributes:
        done: the iterations that it has behind it; None: it is not of a training run.
        config: the plain config of the run; None: it has none, as before version 0.2.
        keys: of its weights.
        teachers: {place in the config: digest of its file}; of those it says nothing of, nothing.
    """

    done: int | None
    config: Mapping[str, Any] | None
    keys: frozenset[str]
    teachers: Mapping[str, str]


def read_summary(path: str) -> RunSummary:
    """That of a checkpoint, which is read again only if the file has changed.

    Raises:
        CheckpointError: it is not there, or cannot be read safely.
    """
    stamp = None
    if PathManager.isfile(path):
        status = os.stat(PathManager.get_local_path(path))
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    return _read(path, stamp)


@functools.lru_cache(maxsize=4)
def _read(path: str, stamp: tuple[int, ...] | None) -> RunSummary:
    content = read_content(path)
    content = content if isinstance(content, Mapping) else {}
    state, config, weights = (content.get(name) for name in ("trainer", "config", "model"))
    teachers = content.get(TEACHERS)  # absent in earlier checkpoints
    iteration = state.get("iteration") if isinstance(state, Mapping) else None
    return RunSummary(
        done=iteration + 1 if is_integer(iteration) else None,
        config=config if isinstance(config, Mapping) else None,
        keys=frozenset(weights if isinstance(weights, Mapping) else ()),
        teachers={
            place: digest
            for place, digest in (teachers.items() if isinstance(teachers, Mapping) else ())
            if isinstance(digest, str)
        },
    )
