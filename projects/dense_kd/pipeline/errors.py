"""The error of this folder."""

from ..errors import DenseKDError


class PipelineError(DenseKDError, ValueError):
    """A distillation that cannot be done as asked; the message says why, and what to do."""
