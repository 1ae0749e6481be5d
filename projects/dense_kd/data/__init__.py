"""Datasets. Importing this registers the shapes dataset with detectron2."""

from .build import DatasetError, detection_dataset
from .folders import OwnDataset, read_dataset, write_annotations
from .loader import TrainLoader
from .registration import register_annotations
from .shapes import default_shapes_root, generate_shapes, register_shapes

__all__ = [
    "DatasetError",
    "OwnDataset",
    "TrainLoader",
    "default_shapes_root",
    "detection_dataset",
    "generate_shapes",
    "read_dataset",
    "register_annotations",
    "register_shapes",
    "write_annotations",
]
