"""The errors of this folder."""

from __future__ import annotations

from ..errors import DenseKDError


class PredictionError(DenseKDError, ValueError):
    """What was given cannot be detected on, or not in this way."""


class ImageError(PredictionError):
    """An image that cannot be read, or is none."""
