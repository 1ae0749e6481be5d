"""The error of this folder, and errors in words for other processes."""

from __future__ import annotations

from ...errors import DenseKDError


class RankError(DenseKDError, RuntimeError):
    """A process of a run has failed or is gone; the message says which, and why."""


def error_text(error: BaseException) -> str:
    """What an error says, with its notes (see :func:`dense_kd.compat.add_note`)."""
    text = str(error) if isinstance(error, DenseKDError) else f"{type(error).__name__}: {error}"
    return "\n".join([text, *getattr(error, "__notes__", ())])
