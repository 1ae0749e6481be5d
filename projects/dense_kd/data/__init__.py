"""Datasets. Importing this registers the shapes dataset with detectron2."""

from .build import DatasetError, detection_dataset
from .shapes import default_shapes_root, generate_shapes, register_shapes

__all__ = [
    "DatasetError",
    "default_shapes_root",
    "detection_dataset",
    "generate_shapes",
    "register_shapes",
]
