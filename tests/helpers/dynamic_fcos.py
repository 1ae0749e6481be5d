"""An FCOS that says that its targets go by its predictions."""

from __future__ import annotations

from dense_kd.detectors import FCOS


class DynamicFCOS(FCOS):
    """Its targets are FCOS's."""

    assigns_by_predictions = True
