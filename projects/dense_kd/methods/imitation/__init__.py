"""Baselines that imitate features of the pyramid."""

from .imitation import FGFI, DeFeat, FitNet, GIBox

__all__ = ["FGFI", "DeFeat", "FitNet", "GIBox"]
