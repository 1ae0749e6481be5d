"""The first checkpoint of a run that was killed before it wrote which one is the last."""

from __future__ import annotations

import os
import re

from detectron2.utils.file_io import PathManager

__all__ = ["unnamed_checkpoint"]

_OF_A_TRAINING = re.compile(r".+_(\d{7,}|final)\.pth")


def unnamed_checkpoint(folder: str | os.PathLike[str]) -> str:
    """The name of the only checkpoint in a folder without ``last_checkpoint``, "" if there is none.

    Of several it is not known which one counts.
    """
    folder = os.fspath(folder)
    names = PathManager.ls(folder) if folder and PathManager.isdir(folder) else []
    found = [name for name in names if _OF_A_TRAINING.fullmatch(name)]
    return found[0] if len(found) == 1 and "last_checkpoint" not in names else ""
