"""The detectors of the package, from their classes, and how large their models are."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from .. import public
from ..config import config_folder, get_config
from ..detectors import DenseDetector
from ..engine.building import count_parameters
from .configs import chosen
from .texts import first_sentence


@dataclasses.dataclass(frozen=True)
class DetectorEntry:
    """A detector.

    Attributes:
        name: of its class.
        summary: what its module says it is.
        config: its baseline, with a ResNet-50.
        parameters: of the model of that config.
    """

    name: str
    summary: str
    config: str
    parameters: int


def detectors(patterns: Sequence[str] = ()) -> list[DetectorEntry]:
    """The detectors that ``dense_kd`` exports, by name.

    Args:
        patterns: as of :func:`.configs.chosen`.
    """
    return [_entry(getattr(public, name)) for name in chosen(names(), patterns)]


def names() -> list[str]:
    """Of the classes of all of them; quicker than their entries."""
    exported = ((name, getattr(public, name)) for name in public.__all__)
    return sorted((name for name, kind in exported if _is_detector(kind)), key=str.lower)


def _is_detector(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, DenseDetector)


def _entry(kind: type[DenseDetector]) -> DetectorEntry:
    folder = config_folder() / kind.__name__.lower()
    config = f"{folder.name}/{min(path.name for path in folder.glob('r50_*.py'))}"
    return DetectorEntry(
        kind.__name__,
        first_sentence(sys.modules[kind.__module__].__doc__),
        config,
        count_parameters(get_config(config).model),
    )
