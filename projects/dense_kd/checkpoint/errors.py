"""The error of this folder."""

from __future__ import annotations

from ..errors import DenseKDError


class CheckpointError(DenseKDError, RuntimeError):
    """A checkpoint that cannot be read, or does not belong to the model."""


class UnreadableError(CheckpointError):
    """The file is damaged, or no checkpoint at all."""


class SaveError(DenseKDError, OSError):
    """A file cannot be written: the disk is full, or its folder is gone or not to be written to."""

    def __str__(self) -> str:
        return str(self.args[-1])


def listed(keys: list[str], limit: int = 20) -> list[str]:
    """``keys`` for an error message: the first ``limit``, and how many more there are."""
    more = [f"... and {len(keys) - limit} more"] if len(keys) > limit else []
    return keys[:limit] + more
