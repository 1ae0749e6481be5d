"""Baselines that imitate features of the pyramid, a file each; FRS, whose masks are scores, has a
file of its own."""

from .defeat import DeFeat
from .fgfi import FGFI
from .fitnet import FitNet
from .gibox import GIBox

__all__ = ["FGFI", "DeFeat", "FitNet", "GIBox"]
