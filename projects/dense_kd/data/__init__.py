"""Datasets. Importing this registers the shapes, BCCD and CrowdHuman with detectron2."""

from detectron2.data import DatasetCatalog

from .bccd import default_bccd_root
from .bccd_install import install_bccd
from .build import DatasetError, detection_dataset
from .crowdhuman import load_crowdhuman, register_all_crowdhuman
from .folders import OwnDataset, read_dataset, write_annotations
from .loader import TrainLoader
from .parts import labelled_part, rest_of_images
from .registration import register_annotations
from .shapes import default_shapes_root, generate_shapes, register_shapes
from .unlabelled import UnlabelledLoader, WithUnlabelled, unlabelled_images

__all__ = [
    "DatasetError",
    "OwnDataset",
    "TrainLoader",
    "UnlabelledLoader",
    "WithUnlabelled",
    "default_bccd_root",
    "default_shapes_root",
    "detection_dataset",
    "generate_shapes",
    "install_bccd",
    "labelled_part",
    "load_crowdhuman",
    "read_dataset",
    "register_all_crowdhuman",
    "register_annotations",
    "register_shapes",
    "rest_of_images",
    "unlabelled_images",
    "write_annotations",
]

BUILT_IN = frozenset(DatasetCatalog)
"""Names that stand for datasets of detectron2 and of this package, before any config is loaded."""
