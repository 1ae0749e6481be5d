"""Places of files that are to be written, looked at before the work that the files are of."""

from __future__ import annotations

import os
import tempfile

from .errors import SaveError

__all__ = ["check_file", "check_folder", "folder_problem"]


def folder_problem(folder: str | os.PathLike[str]) -> str:
    """Why files cannot be written to a folder, which may not be there yet; "" if they can."""
    path = os.path.abspath(folder)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        return f"{path} is a file, expected a folder"
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        return f"nothing can be written to {path} ({error.strerror}); give another folder"
    return ""


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Raise SaveError unless files can be written to a folder, which may not be there yet."""
    problem = folder_problem(folder)
    if problem:
        raise SaveError(f"the output {os.fspath(folder)}: {problem}")


def check_file(file: str | os.PathLike[str]) -> None:
    """Raise SaveError unless a file can be written, whose folder may not be there yet."""
    place = os.fspath(file)
    if os.path.isdir(place):
        raise SaveError(f"the output {place} is a folder, expected a file")
    if os.path.exists(place) and not os.path.isfile(place):
        raise SaveError(f"the output {place} is a device or a pipe, expected a file")
    problem = folder_problem(os.path.dirname(os.path.abspath(place)))
    if problem:
        raise SaveError(f"the output {place}: {problem}")
