"""Detectors in containers, texts and numbers, so that a checkpoint tells how to build its own.

What is called to build a detector is named, and a name stands for nothing but what :mod:`.allowed`
lists.
"""

from .allowed import named
from .building import build_described
from .describing import IndescribableError, describe

__all__ = ["IndescribableError", "build_described", "describe", "named"]
