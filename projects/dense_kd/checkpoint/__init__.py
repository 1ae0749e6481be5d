"""Checkpoints: safe reading, strict loading, atomic writing."""

from .checkpointer import AtomicCheckpointer, replace_atomically
from .conversion import Conversion, convert_file
from .errors import CheckpointError
from .mmdet import convert_mmdet, is_mmdet
from .reading import METHOD_PREFIX, load_strictly, read_content, read_weights

__all__ = [
    "METHOD_PREFIX",
    "AtomicCheckpointer",
    "CheckpointError",
    "Conversion",
    "convert_file",
    "convert_mmdet",
    "is_mmdet",
    "load_strictly",
    "read_content",
    "read_weights",
    "replace_atomically",
]
