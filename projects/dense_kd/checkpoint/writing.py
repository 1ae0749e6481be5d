"""Files that are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from .errors import SaveError

_HOST = re.sub(r"[^\w.]", "_", socket.gethostname())
# What stands after the name of the file: host and process, or the process alone (version 0.1).
_TEMPORARY = re.compile(r"\.tmp(?:-(?P<host>[\w.]+)-)?(?P<process>\d+)")
_ABANDONED_AFTER = 3600.0  # seconds without a write, for processes of other machines


def replace_atomically(
    path: str, write: Callable[[Any], Any], *, one_of_many: bool = False
) -> None:
    """Let ``write`` fill a file that appears under ``path`` only when it is whole and on disk.

    What a process that was killed has left of an earlier try is removed.

    Args:
        path: of the file; its folder is there.
        write: gets a file that bytes are written to; if the disk is full it is called once more,
            to tell how many they are.
        one_of_many: what was left is not looked for, which takes longer the more files there are,
            nor is it waited for the disk: a crash of the machine may leave a damaged file.

    Raises:
        SaveError: the file cannot be written; what was there is as it was.
    """
    folder, name = os.path.split(path)
    temporary = temporary_name(path)
    output = _Output()
    try:
        if not one_of_many:
            remove_abandoned(folder, re.escape(name))
        with open(temporary, "wb") as file:
            output.file = file
            write(output)
            file.flush()
            if not one_of_many:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if not one_of_many:
            _sync_folder(folder)
    except Exception as error:
        # Torch and others say something else of it.
        cause = error if isinstance(error, OSError) and error.errno else output.error
        if cause is None:
            raise
        _remove(temporary)  # which takes part of what is free
        raise save_error(path, cause, write) from error
    finally:
        _remove(temporary)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8, as :func:`replace_atomically` does.

    Names of files may hold bytes that are no Unicode, which Python reads as surrogates. They are
    written as the escapes of :func:`printable`, which JSON and Python read as what they were.

    Raises:
        SaveError: as there.
    """
    content = printable(text).encode()
    replace_atomically(os.fspath(path), lambda file: file.write(content))


def printable(text: str) -> str:
    """The text with escapes for what UTF-8 has not, as in names of files that are no Unicode."""
    return text.encode("utf-8", errors="backslashreplace").decode()


@contextlib.contextmanager
def saving(path: str | os.PathLike[str]) -> Iterator[None]:
    """For what others write to ``path``: an OSError becomes a :class:`SaveError` that names it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, SaveError):
            raise
        raise save_error(os.fspath(path), error) from error


def save_error(path: str, error: OSError, write: Callable[[Any], Any] | None = None) -> SaveError:
    """What to say, and to do, where a file cannot be written.

    Args:
        path: of the file.
        error: of the system.
        write: see :func:`replace_atomically`.
    """
    folder = os.path.dirname(path) or "."
    reason = error.strerror or str(error)
    room = ""
    if error.errno in _FULL:
        needed = _size(write) if write is not None else None
        room = f" ({f'{needed:,} bytes are needed, ' if needed else ''}{_free(folder)})"
    advice = _ADVICE.get(error.errno or 0, "see what is wrong with that folder")
    kept = "" if write is None else ". What was there before is as it was"
    return SaveError(
        error.errno,
        f"{path} cannot be written: {reason}{room}{kept}; {advice}, and give the same command "
        "again (a training with --resume)",
    )


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SPACE = "make space there, or give another folder"
_PERMISSION = "get the permission to write there, or give another folder"
_GONE = "make the folder again, or see whether its disk is still mounted"
_ADVICE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: "make space in your quota, or give another folder",
    errno.EFBIG: "raise the limit for files of this process (ulimit -f), or give another folder",
    errno.EROFS: _PERMISSION,
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOENT: _GONE,
    errno.ENOTDIR: _GONE,
    errno.ESTALE: _GONE,
}


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(path)


class _Output(io.BufferedIOBase):
    """A file that keeps the system's error, and counts bytes where there is none."""

    def __init__(self) -> None:
        self.file: BinaryIO | None = None
        self.error: OSError | None = None
        self.end = 0
        self._position = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        size = memoryview(content).nbytes
        self._position += size
        self.end = max(self.end, self._position)
        if self.file is not None:
            try:
                self.file.write(content)
            except OSError as error:
                self.error = error
                raise
        return size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.end}[whence]
        self._position = start + offset
        if self.file is not None:
            self.file.seek(self._position)
        return self._position

    def tell(self) -> int:
        return self._position


def _size(write: Callable[[Any], Any]) -> int | None:
    output = _Output()
    try:
        write(output)
    except Exception:  # of whatever writes, which has failed already
        return None
    return output.end


def _free(folder: str) -> str:
    try:
        return f"{shutil.disk_usage(folder).free:,} are free in {folder}"
    except OSError:
        return f"how many are free in {folder} is not known"


def _sync_folder(folder: str) -> None:
    """Let also the name of a new file outlast a crash of the machine, where folders can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def temporary_name(path: str) -> str:
    """Of the file of this process that is to become ``path``."""
    return f"{path}.tmp-{_HOST}-{os.getpid()}"


def remove_abandoned(folder: str, name: str) -> None:
    """Remove the temporary files of :func:`replace_atomically` whose process is dead.

    Of another machine that writes to the same folder nothing is known but the age of its files.
    Those that cannot be removed, as where the folder can only be read, stay.

    Args:
        folder: where to look.
        name: pattern of the files that were to be written.
    """
    for entry in os.scandir(folder or "."):
        match = re.fullmatch(f"(?:{name}){_TEMPORARY.pattern}", entry.name)
        if match and _is_abandoned(entry, match["host"], int(match["process"])):
            _remove(entry.path)  # unless another process has cleaned up


def _is_abandoned(entry: os.DirEntry[str], host: str | None, process: int) -> bool:
    if host in (None, _HOST):
        return process == os.getpid() or not _is_alive(process)
    try:
        return time.time() - entry.stat().st_mtime > _ABANDONED_AFTER
    except OSError:  # it is gone, or not to be asked
        return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:  # there is one, of another user
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
