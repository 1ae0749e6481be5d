"""Errors of reports."""

from __future__ import annotations

from ..errors import DenseKDError


class ReportError(DenseKDError, ValueError):
    """What cannot be reported on."""
