"""Datasets of one's own: folders in the format of COCO, Pascal VOC or YOLO."""

from .dataset import OwnDataset, read_dataset
from .problems import Problem, Problems
from .writing import write_annotations

__all__ = ["OwnDataset", "Problem", "Problems", "read_dataset", "write_annotations"]
