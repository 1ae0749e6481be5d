"""Finds copies of one image."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from .images import Header


def copies(headers: Mapping[Path, Header]) -> dict[Path, Path]:
    """For each image that has a copy under another path, the first path of the same content.

    Args:
        headers: of the images, by their path. Only those with equal fingerprints are read.
    """
    alike: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for path, header in headers.items():
        alike[header.fingerprint].append(path)
    first: dict[Path, Path] = {}
    for paths in alike.values():
        if len(paths) == 1:
            continue
        equal: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(paths):
            equal[_digest(path)].append(path)
        for same in equal.values():
            if len(same) > 1:
                first.update(dict.fromkeys(same, same[0]))
    return first


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            digest = hashlib.blake2b()
            for block in iter(lambda: file.read(2**20), b""):
                digest.update(block)
        return digest.hexdigest()
    except OSError:  # gone since its header was read: a copy of nothing
        return os.fspath(path)
