"""What a file is known by."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_digest(file: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def weights_digest(weights: str) -> str:
    """Of weights that are a file its digest; others are their name."""
    return file_digest(weights) if Path(weights).is_file() else weights
