"""The detectors whose trained weights are public, from the table that ``known_teacher`` reads."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Sequence

from ..config import config_folder, get_config
from ..engine.building import count_parameters
from ..recipes import PUBLISHED
from .configs import chosen

_PUBLISHED_AP = re.compile(r"\bzoo:\s+([\d.]+)\s+AP\b")


@dataclasses.dataclass(frozen=True)
class TeacherEntry:
    """A detector with public weights.

    Attributes:
        config: as :func:`dense_kd.known_teacher` takes it.
        weights: what ``Teacher(weights=...)`` and ``train.init_checkpoint`` take.
        ap: on COCO val2017, as published (in percent), None where its config states none.
        parameters: of the model.
    """

    config: str
    weights: str
    ap: float | None
    parameters: int


def teachers(patterns: Sequence[str] = ()) -> list[TeacherEntry]:
    """The detectors with public weights, by name of their config.

    Args:
        patterns: as of :func:`.configs.chosen`.
    """
    return [_entry(name) for name in chosen(names(), patterns)]


def names() -> list[str]:
    """Of the configs of all of them; quicker than their entries."""
    return sorted(PUBLISHED)


def _entry(name: str) -> TeacherEntry:
    source = (config_folder() / name).read_text(encoding="utf-8")
    stated = _PUBLISHED_AP.search(ast.get_docstring(ast.parse(source)) or "")
    return TeacherEntry(
        name,
        PUBLISHED[name],
        float(stated[1]) if stated else None,
        count_parameters(get_config(name).model),
    )
