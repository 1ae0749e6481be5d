"""Pictures and pages about trained detectors."""

from .curves import Curves, curves_as_svg, save_curves
from .drawing import ComparedImage, Panel, choose_images, compare, draw_boxes
from .report import write_report

__all__ = [
    "ComparedImage",
    "Curves",
    "Panel",
    "choose_images",
    "compare",
    "curves_as_svg",
    "draw_boxes",
    "save_curves",
    "write_report",
]
