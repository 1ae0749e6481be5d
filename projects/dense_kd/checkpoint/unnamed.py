"""Which checkpoint a run goes on with, also if it was killed before it wrote that."""

from __future__ import annotations

import os
import re

from detectron2.utils.file_io import PathManager

from .errors import CheckpointError

__all__ = ["LAST", "checkpoint_to_resume", "unnamed_checkpoint"]

LAST = "last_checkpoint"
"""The file with the name of the checkpoint that was written last."""

_OF_A_TRAINING = re.compile(r".+_(\d{7,}|final)\.pth")


def unnamed_checkpoint(folder: str | os.PathLike[str]) -> str:
    """The name of the only checkpoint in a folder without ``last_checkpoint``, "" if there is none.

    Of several it is not known which one counts.
    """
    folder = os.fspath(folder)
    names = PathManager.ls(folder) if folder and PathManager.isdir(folder) else []
    found = [name for name in names if _OF_A_TRAINING.fullmatch(name)]
    return found[0] if len(found) == 1 and LAST not in names else ""


def checkpoint_to_resume(folder: str | os.PathLike[str]) -> str:
    """The name that ``last_checkpoint`` holds, or else that of the only one; "" if there is none.

    Raises:
        CheckpointError: it holds no name.
    """
    path = os.path.join(os.fspath(folder), LAST)
    if not PathManager.isfile(path):
        return unnamed_checkpoint(folder)
    with PathManager.open(path, "rb") as file:
        content = file.read()
    try:
        name = content.decode().strip()
    except UnicodeDecodeError:
        name = "\0"
    if not name or not name.isprintable():
        what = f"damaged: {content[:40]!r} is no name of a file" if name else "empty"
        raise CheckpointError(
            f"{path} is {what}; write the name of the checkpoint to go on with into it, such as "
            "model_0004999.pth"
        )
    return name
