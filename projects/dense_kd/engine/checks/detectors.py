"""Numbers of detectors that a constructor takes and that only an evaluation would show wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from omegaconf import DictConfig, ListConfig

from ...arguments import is_number
from ...detectors import DenseDetector, TowerHead
from .rules import ANYTHING, Rule, integer, optional
from .tree import calls_of, select

_SHARE = Rule("a number from 0 to 1", lambda v: is_number(v) and 0 <= v <= 1)
_PART = Rule("a number of at least 0 and below 1", lambda v: is_number(v) and 0 <= v < 1)
_PROBABILITY = Rule("a number between 0 and 1", lambda v: is_number(v) and 0 < v < 1)
_NOT_NEGATIVE = Rule("a number of at least 0", lambda v: is_number(v) and v >= 0)
_POSITIVE = Rule("a number above 0", lambda v: is_number(v) and v > 0)

RULES: Mapping[str, Rule] = {
    "test_score_thresh": _SHARE,
    "test_nms_thresh": _SHARE,
    "test_topk_candidates": integer(1),
    "max_detections_per_image": integer(1),
    "loss_normalizer": _POSITIVE,
    "loss_normalizer_momentum": _PART,
    "focal_loss_gamma": _NOT_NEGATIVE,
    "quality_focal_loss_beta": _NOT_NEGATIVE,
    "smooth_l1_beta": _NOT_NEGATIVE,
    "center_sampling_radius": optional(_POSITIVE),
    "assign_topk": integer(1),
    "vis_period": integer(0),
    "prior_prob": _PROBABILITY,
    "num_anchors": integer(1),
    "reg_max": optional(integer(1)),
}
"""By the name of the argument; that of a loss's weight ends in ``_weight``."""


def problems(cfg: DictConfig) -> Iterator[str]:
    """Those of all detectors and heads of ``model``."""
    for place, node in calls_of(cfg.model, "model", (DenseDetector, TowerHead)):
        for key in node:
            rule = RULES.get(key, _NOT_NEGATIVE if key.endswith("_weight") else ANYTHING)
            value = select(node, key)
            if not rule.holds(value):
                yield f"{place}.{key}={value!r}: expected {rule.expected}"
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
