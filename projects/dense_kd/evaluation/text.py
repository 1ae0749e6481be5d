"""Metrics as they are shown."""

from __future__ import annotations

import math

__all__ = ["shown"]


def shown(value: float | None, missing: str = "n/a") -> str:
    """A metric with one decimal.

    Args:
        value: None or NaN is one that is not there, or that COCO does not define, as the AP of a
            size that no object has.
        missing: stands for such a value.
    """
    return missing if value is None or math.isnan(value) else f"{value:.1f}"
