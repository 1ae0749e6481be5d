"""What is wrong with an evaluation."""

from __future__ import annotations

from ..errors import DenseKDError


class EvaluationError(DenseKDError, ValueError):
    """Results, annotations or options that cannot be evaluated; the message says why."""
