"""The error of this folder."""

from __future__ import annotations

from ..errors import DenseKDError


class ExportError(DenseKDError, ValueError):
    """A detector cannot be exported as asked, or what came out does not do what it does."""
