"""Backbones of timm: that timm is there, and that images are as the ImageNet weights saw them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from ...arguments import is_number
from ...checkpoint.packages import PACKAGES
from ...detectors import TimmBackbone, timm_normalisation
from ...timm_models import check_timm_name
from .data import detector_of
from .tree import calls_of, select

_CLOSE = 1.5
"""How far a mean or a deviation of pixels (0 to 255) may be from that of the weights."""


def problems(cfg: DictConfig, mode: str) -> Iterator[str]:
    """Those of all backbones of timm in ``model``, and of the one that ``train`` starts."""
    found = False
    for place, node in calls_of(cfg.model, "model", TimmBackbone):
        try:
            check_timm_name(select(node, "name"))
        except (ImportError, ValueError) as error:
            found = True
            yield f"{place}.name={select(node, 'name')}: {error}"
    if mode == "train" and not found:
        yield from _normalisation(cfg)


def _normalisation(cfg: DictConfig) -> Iterator[str]:
    place, detector = detector_of(cfg, "train")
    source = cfg.train.get("init_checkpoint")
    if not isinstance(detector, DictConfig) or not any(calls_of(detector, place, TimmBackbone)):
        return
    try:
        expected = _of_weights(source)
    except (ImportError, ValueError):  # of a name that timm does not know, which files.py says
        return
    given = {key: select(detector, key) for key in expected}
    given["input_format"] = given.get("input_format") or "BGR"  # detectors' own default
    wrong = [key for key, value in expected.items() if not _agree(value, given[key])]
    if wrong:
        said = ", ".join(f"{key}={_shown(given[key])}" for key in wrong)
        needed = ", ".join(f"{key}={_shown(expected[key])}" for key in wrong)
        yield (
            f"{place}: {said}, but the weights of train.init_checkpoint={source} saw images with "
            f"{needed}; give these (dense_kd.detectors.timm_normalisation returns them)"
        )


def _of_weights(source: Any) -> dict[str, Any]:
    """The normalisation of ImageNet weights with a name; {} where it is not known."""
    scheme, _, name = source.partition("://") if isinstance(source, str) else ("", "", "")
    if scheme == "package" and name in PACKAGES:
        return timm_normalisation(PACKAGES[name].network)
    return timm_normalisation(name) if scheme == "timm" else {}


def _agree(expected: Any, given: Any) -> bool:
    if isinstance(expected, str):
        return expected == str(given).upper()
    try:
        pairs = list(zip(expected, given))
    except TypeError:
        return False
    return len(pairs) == len(given) and all(
        is_number(value) and abs(value - wanted) <= _CLOSE for wanted, value in pairs
    )


def _shown(value: Any) -> Any:
    return value if isinstance(value, str) or value is None else list(value)
