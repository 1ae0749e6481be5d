"""Read the files of torch.save, and plain pickles: all they hold, and whole or not at all."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import torch

from .pickled_objects import Budget, Storage, StorageType
from .pickles import read_pickle
from .signatures import describe

BLOCK = 1 << 20
"""Bytes that are read at once."""

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle in the files of torch before 1.6."""


def read_file(file: BinaryIO, size: int) -> Any:
    """The content of a file of torch.save, or of a pickle, on the CPU.

    Args:
        file: from its beginning.
        size: of the file, in bytes.

    Raises:
        ForbiddenError: it holds something that is neither a container nor weights.
        Exception: of many kinds, it is damaged or no checkpoint.
    """
    head = file.read(512)
    what = describe(head)
    if what is not None:
        raise ValueError(f"it is {what}")
    file.seek(0)
    if head.startswith(b"PK"):
        return _read_archive(file, size)
    budget = Budget(size)
    content = read_pickle(file, size, budget)
    return _read_legacy(file, size, budget) if content == _LEGACY_MAGIC else content


def _read_archive(file: BinaryIO, size: int) -> Any:
    """The content of a zip of torch.save; the checksum of every file in it is verified."""
    with zipfile.ZipFile(file) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise ValueError("it is a TorchScript program, not a checkpoint of torch.save")
        entries = _entries(archive, size)
        root = _root(entries)
        order = entries.pop(f"{root}byteorder", None)
        if order is not None and archive.read(order).decode() != sys.byteorder:
            raise ValueError("it was written on a machine with another order of bytes")
        storages: dict[str, torch.Tensor] = {}

        def storage(key: str, dtype: torch.dtype, count: int) -> Storage:
            if key not in storages:
                entry = entries.pop(f"{root}data/{key}", None)
                if entry is None:
                    raise ValueError(f"the numbers of storage {key[:40]!r} are not in it")
                storages[key] = _read_bytes(archive, entry)
            return Storage(_elements(storages[key], dtype, count))

        pickled = archive.read(entries.pop(f"{root}data.pkl"))
        content = read_pickle(io.BytesIO(pickled), len(pickled), Budget(size), _persistent(storage))
        for entry in entries.values():  # what the pickle does not refer to
            _read_bytes(archive, entry)
    return content


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """{name: entry}; together they are no larger than the file, since torch compresses nothing."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise ValueError("two files in the archive have one name")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise ValueError("it is a compressed archive, which torch.save does not write")
    if sum(entry.file_size for entry in entries.values()) > size:
        raise ValueError("the files in the archive are larger than the archive")
    return entries


def _root(entries: dict[str, zipfile.ZipInfo]) -> str:
    """The folder of the archive with torch's files, with a slash."""
    found = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(found) != 1:
        names = sorted(entries)[:5]
        raise ValueError(f"it is an archive with the files {names}, none of them torch's data.pkl")
    return found[0][: -len("data.pkl")]


def _read_bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> torch.Tensor:
    """The bytes of a file in the archive, whose checksum is verified."""
    content = bytearray(entry.file_size)
    view, done = memoryview(content), 0
    with cast(io.BufferedIOBase, archive.open(entry)) as file:
        while count := file.readinto(view[done : done + BLOCK]):
            done += count
    if done != len(content):
        raise ValueError(f"{entry.filename} in it ends after {done} of {len(content)} bytes")
    return _tensor_of(content)


def _tensor_of(content: bytearray) -> torch.Tensor:
    if not content:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(content, dtype=torch.uint8)


def _elements(content: torch.Tensor, dtype: torch.dtype, count: int) -> torch.Tensor:
    if content.numel() != count * torch.empty(0, dtype=dtype).element_size():
        raise ValueError(f"{content.numel()} bytes for {count} elements of {dtype}")
    return content.view(dtype)


def _persistent(
    storage: Callable[[str, torch.dtype, int], Storage],
) -> Callable[[Any], Storage]:
    """What a persistent id stands for, ("storage", type, key, device, number of elements)."""

    def load(reference: Any) -> Storage:
        if not (isinstance(reference, tuple) and len(reference) in (5, 6)):
            raise pickle.UnpicklingError("a reference that is none to a storage")
        what, kind, key, _, count, *view = reference
        checked = isinstance(kind, StorageType) and isinstance(key, str) and type(count) is int
        if not checked or what != "storage" or view not in ([], [None]):
            raise pickle.UnpicklingError("a reference that is none to a whole storage")
        return storage(key, kind.dtype, count)

    return load


def _read_legacy(file: BinaryIO, size: int, budget: Budget) -> Any:
    """What follows the magic number in a file of torch before 1.6; it has no checksums."""
    read_pickle(file, size, budget)  # the version of the format
    system = read_pickle(file, size, budget)
    if system.get("little_endian", True) != (sys.byteorder == "little"):
        raise ValueError("it was written on a machine with another order of bytes")
    storages: dict[str, Storage] = {}
    contents: dict[str, bytearray] = {}
    total = 0

    def storage(key: str, dtype: torch.dtype, count: int) -> Storage:
        nonlocal total
        if key not in storages:
            length = count * torch.empty(0, dtype=dtype).element_size()
            total += length
            if not 0 <= length <= total <= size:
                raise ValueError(f"the file ends before its storage of {count} elements")
            contents[key] = bytearray(length)
            storages[key] = Storage(_tensor_of(contents[key]).view(dtype))
        elif storages[key].elements.numel() != count or storages[key].elements.dtype != dtype:
            raise ValueError(f"two sizes of storage {key[:40]!r}")
        return storages[key]

    content = read_pickle(file, size, budget, _persistent(storage))
    keys = read_pickle(file, size, budget)
    if set(keys) != set(contents):
        raise ValueError("the storages in it are not those that its tensors need")
    for key in keys:
        written = file.read(8)
        count = int.from_bytes(written, sys.byteorder)
        if len(written) < 8:
            raise ValueError("the file ends before the last of its storages")
        if count != storages[key].elements.numel():
            raise ValueError(f"{count} elements in the storage {key[:40]!r}")
        if cast(io.BufferedIOBase, file).readinto(contents[key]) != len(contents[key]):
            raise ValueError("the file ends within its numbers")
    return content
