"""Checkpoints: safe reading, strict loading, atomic writing.

Importing this package teaches detectron2's PathManager the names of :mod:`.zoo`.
"""

from .checkpointer import FINAL_CHECKPOINT, AtomicCheckpointer
from .classes import check_class_names, class_names
from .conversion import convert_file
from .errors import CheckpointError, SaveError
from .fitting import load_strictly
from .layouts.formats import Conversion, convert
from .layouts.mmdet import convert_mmdet, is_mmdet
from .layouts.torchvision import convert_torchvision, torchvision_model
from .layouts.wrappers import METHOD_PREFIX
from .parts import load_part
from .reading.weights import read_content, read_weights
from .writing import replace_atomically, saving, write_text
from .zoo import ZooHandler, published_file

__all__ = [
    "FINAL_CHECKPOINT",
    "METHOD_PREFIX",
    "AtomicCheckpointer",
    "CheckpointError",
    "Conversion",
    "SaveError",
    "ZooHandler",
    "check_class_names",
    "class_names",
    "convert",
    "convert_file",
    "convert_mmdet",
    "convert_torchvision",
    "is_mmdet",
    "load_part",
    "load_strictly",
    "published_file",
    "read_content",
    "read_weights",
    "replace_atomically",
    "saving",
    "torchvision_model",
    "write_text",
]
