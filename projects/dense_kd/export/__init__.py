"""A trained detector for other programs: ONNX, TorchScript, torch.export, mmdetection, detectron2.

``dense-kd export`` is :func:`export`.
"""

from .errors import ExportError
from .folder import TARGETS, Exported, default_folder, export
from .graph import DetectionGraph

__all__ = ["TARGETS", "DetectionGraph", "ExportError", "Exported", "default_folder", "export"]
