"""Where entries are: in memory, or in files that several runs share."""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..checkpoint.writing import remove_abandoned, saving, temporary_name
from .entry import Entry, Map

logger = logging.getLogger(__name__)

_MAGIC = b"dense_kd: maps of a teacher, 1\n"
_SUFFIX = ".maps"
_LONGEST_HEADER = 1 << 20
_WRITES_BETWEEN_LOOKS = 64


class Store(ABC):
    """Entries by key.

    Attributes:
        nbytes: of all entries, as far as is known.
        count: of the entries.
    """

    nbytes = 0
    count = 0

    @abstractmethod
    def get(self, key: str) -> Entry | None:
        """The entry of ``key``, or None."""

    @abstractmethod
    def put(self, key: str, entry: Entry) -> None:
        """Keep ``entry`` under ``key``, in place of what is there."""


class MemoryStore(Store):
    """In the memory of this process."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def get(self, key: str) -> Entry | None:
        """The entry of ``key``, or None."""
        return self._entries.get(key)

    def put(self, key: str, entry: Entry) -> None:
        """Keep ``entry`` under ``key``, in place of what is there."""
        before = self._entries.get(key)
        self._entries[key] = entry
        self.nbytes += entry.nbytes - (before.nbytes if before else 0)
        self.count += before is None


class FolderStore(Store):
    """A file for each entry, which all processes that are given the folder read and write.

    A file is whole or absent, and says which entry it is and what its bytes add up to. One that is
    damaged is as one that is not there: it is written anew.
    """

    def __init__(self, folder: str):
        """
        Args:
            folder: is made if it is not there.
        """
        self._folder = Path(folder)
        with saving(folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        for part in self._folder.glob("[0-9a-f][0-9a-f]/"):
            remove_abandoned(str(part), rf"[\w-]+{re.escape(_SUFFIX)}")
        self._writes = 0
        self._look()

    def get(self, key: str) -> Entry | None:
        """The entry of ``key``, or None."""
        path = self._path(key)
        try:
            return _read(path, key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning(
                f"{path} in the cache of the teacher cannot be used ({error}); the teacher is run "
                "instead, and the file written anew"
            )
            self._look()
            return None

    def put(self, key: str, entry: Entry) -> None:
        """Keep ``entry`` under ``key``, in place of what is there.

        Raises:
            SaveError: the disk is full, or the folder cannot be written to.
        """
        path = self._path(key)
        before = path.stat().st_size if path.exists() else None
        temporary = Path(temporary_name(str(path)))
        with saving(path):
            path.parent.mkdir(exist_ok=True)
            try:
                # Not forced to the disk: what a crash leaves there is found to be damaged.
                with open(temporary, "wb") as file:
                    _write(file, key, entry)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        self.nbytes += path.stat().st_size - (before or 0)
        self.count += before is None
        self._writes += 1
        if self._writes % _WRITES_BETWEEN_LOOKS == 0:  # others write there, too
            self._look()

    def _look(self) -> None:
        sizes = [*self._sizes()]
        self.nbytes, self.count = sum(sizes), len(sizes)

    def _sizes(self) -> Iterator[int]:
        for path in self._folder.glob(f"*/*{_SUFFIX}"):
            try:
                yield path.stat().st_size
            except FileNotFoundError:  # somebody empties the folder
                continue

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}{_SUFFIX}"


def _write(file: BinaryIO, key: str, entry: Entry) -> None:
    maps = [
        [each.name, [*each.shape], _name(each.dtype), _name(each.kept), each.begin]
        for each in entry.maps
    ]
    header = json.dumps({"key": key, "maps": maps}).encode()
    content: Any = entry.content.numpy()
    file.write(b"%s%08x %s\n" % (_MAGIC, zlib.crc32(content, zlib.crc32(header)), header))
    file.write(content)


def _read(path: Path, key: str) -> Entry:
    """
    Raises:
        ValueError: it is no whole file of this entry; the message says what is wrong.
    """
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it is no file of this version of the cache")
        digits, _, header = file.readline(_LONGEST_HEADER).rstrip(b"\n").partition(b" ")
        content = bytearray(os.fstat(file.fileno()).st_size - file.tell())
        file.readinto(content)
    if digits != b"%08x" % zlib.crc32(content, zlib.crc32(header)):
        raise ValueError("its bytes are not those that were written")
    found = json.loads(header)
    if found["key"] != key:
        raise ValueError(f"it is the entry {found['key']}")
    numbers = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0).byte()
    maps = (
        Map(name, tuple(shape), getattr(torch, dtype), getattr(torch, kept), begin)
        for name, shape, dtype, kept, begin in found["maps"]
    )
    return Entry(tuple(maps), numbers)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
