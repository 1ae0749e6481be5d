"""The parts of a pass that are kept apart, so that runs with other methods share what both read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from torch import Tensor

from ..detectors.base.heads import HeadOutputs, Maps
from ..outputs import Tap

FEATURES, PREDICTIONS = "features", "predictions"

_OUTPUTS = tuple(field.name for field in dataclasses.fields(HeadOutputs))


def parts_of(taps: Iterable[Tap], predictions: bool, features: bool) -> list[str]:
    """The parts that hold this of a pass; the features, where that would be none.

    Args:
        taps: (branch, depth) of tower features.
        predictions, features: whether they are wanted.
    """
    parts = [_part_of(tap) for tap in taps] + [PREDICTIONS] * predictions
    return [*parts, FEATURES] if features or not parts else parts


def split(maps: Maps, parts: Iterable[str]) -> dict[str, dict[str, list[Tensor]]]:
    """{part: {name: L x (N, C, Hl, Wl)}} of a batch.

    Args:
        maps: which have these parts.
        parts: of :func:`parts_of`.
    """
    every = {_part_of(tap): {_part_of(tap): levels} for tap, levels in maps.taps.items()}
    every[FEATURES] = {FEATURES: maps.features}
    if maps.outputs is not None:
        every[PREDICTIONS] = {name: getattr(maps.outputs, name) for name in _OUTPUTS}
    return {part: every[part] for part in parts}


def joined(found: Mapping[str, Mapping[str, list[Tensor]]], taps: Iterable[Tap]) -> Maps:
    """The maps whose parts these are; without features, others stand there for their sizes.

    Args:
        found: as :func:`split` gives it.
        taps: of the maps.
    """
    predictions = found.get(PREDICTIONS)
    of_taps = {tap: found[_part_of(tap)][_part_of(tap)] for tap in taps}
    if FEATURES in found:
        features = found[FEATURES][FEATURES]
    else:
        features = next(iter(of_taps.values())) if predictions is None else predictions["logits"]
    outputs = None
    if predictions is not None:
        outputs = HeadOutputs(**{name: predictions.get(name, []) for name in _OUTPUTS})
    return Maps(features, outputs, of_taps)


def _part_of(tap: Tap) -> str:
    return "-".join(map(str, tap))
