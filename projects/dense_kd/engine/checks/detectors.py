"""Numbers of detectors that a constructor takes and that only an evaluation would show wrong."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig, ListConfig

from ...arguments import is_number
from ...detectors import DenseDetector, TowerHead
from ...detectors.base.options import CHECKS, check_options
from .tree import calls_of, select


def problems(cfg: DictConfig) -> Iterator[str]:
    """Those of all detectors and heads of ``model``."""
    for place, node in calls_of(cfg.model, "model", (DenseDetector, TowerHead)):
        for key in [key for key in node if key in CHECKS]:
            try:
                check_options(**{key: select(node, key)})
            except ValueError as error:
                yield f"{place}.{error}"
        yield from _normalisation(place, node)


def _normalisation(place: str, node: DictConfig) -> Iterator[str]:
    mean, std = select(node, "pixel_mean"), select(node, "pixel_std")
    if not (isinstance(mean, ListConfig) and isinstance(std, ListConfig)):
        return
    if len(mean) != len(std):
        yield (
            f"{place}.pixel_mean has {len(mean)} numbers and pixel_std {len(std)}; expected one "
            "for each channel"
        )
    if not all(is_number(value) and value > 0 for value in std):
        yield f"{place}.pixel_std={list(std)}: expected numbers above 0, images are divided by them"
