"""Datasets. Importing this registers the shapes dataset with detectron2."""

from .build import DatasetError, detection_dataset
from .loader import TrainLoader
from .shapes import default_shapes_root, generate_shapes, register_shapes

__all__ = [
    "DatasetError",
    "TrainLoader",
    "default_shapes_root",
    "detection_dataset",
    "generate_shapes",
    "register_shapes",
]
