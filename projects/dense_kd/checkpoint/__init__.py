"""Checkpoints: safe reading, strict loading, atomic writing."""

from .checkpointer import AtomicCheckpointer, replace_atomically
from .reading import METHOD_PREFIX, CheckpointError, load_strictly, read_weights

__all__ = [
    "METHOD_PREFIX",
    "AtomicCheckpointer",
    "CheckpointError",
    "load_strictly",
    "read_weights",
    "replace_atomically",
]
