"""The error of this folder."""

from __future__ import annotations

from ..errors import DenseKDError


class DiagnosticsError(DenseKDError, ValueError):
    """What was asked for cannot be computed for these detectors, methods or images."""
