"""Files that are whole or absent."""

from __future__ import annotations

import os
import re
import socket
import time
from typing import Any, BinaryIO, Callable

_HOST = re.sub(r"[^\w.]", "_", socket.gethostname())
# What stands after the name of the file: host and process, or the process alone (version 0.1).
_TEMPORARY = re.compile(r"\.tmp(?:-(?P<host>[\w.]+)-)?(?P<process>\d+)")
_ABANDONED_AFTER = 3600.0  # seconds without a write, for processes of other machines


def replace_atomically(path: str, write: Callable[[BinaryIO], Any]) -> None:
    """Let ``write`` fill a file that appears under ``path`` only when it is whole and on disk.

    What a process that was killed has left of an earlier try is removed.
    """
    folder, name = os.path.split(path)
    remove_abandoned(folder, re.escape(name))
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def temporary_name(path: str) -> str:
    """Of the file of this process that is to become ``path``."""
    return f"{path}.tmp-{_HOST}-{os.getpid()}"


def remove_abandoned(folder: str, name: str) -> None:
    """Remove the temporary files of :func:`replace_atomically` whose process is dead.

    Of another machine that writes to the same folder nothing is known but the age of its files.

    Args:
        folder: where to look.
        name: pattern of the files that were to be written.
    """
    for entry in os.scandir(folder or "."):
        match = re.fullmatch(f"(?:{name}){_TEMPORARY.pattern}", entry.name)
        if match and _is_abandoned(entry, match["host"], int(match["process"])):
            try:
                os.remove(entry.path)
            except FileNotFoundError:  # another process has cleaned up
                pass


def _is_abandoned(entry: os.DirEntry[str], host: str | None, process: int) -> bool:
    if host in (None, _HOST):
        return process == os.getpid() or not _is_alive(process)
    try:
        return time.time() - entry.stat().st_mtime > _ABANDONED_AFTER
    except FileNotFoundError:
        return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:  # there is one, of another user
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
