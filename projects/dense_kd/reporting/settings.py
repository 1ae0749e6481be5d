"""How the configs of runs differ, and what they have in common."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..engine.state.stored_config import short

__all__ = ["ABSENT", "compare_settings"]

ABSENT = "–"
"""In place of what a config does not have."""

_MISSING = object()
_CUT = "..."
_DEEP = 2  # names inside of "distillation.teacher.model" tell little


def compare_settings(
    configs: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Go through configs side by side.

    Args:
        configs: one or more.

    Returns:
        ({dotted name: a text for each config} where they differ; of a part that some do not have,
        and that is the same in all others, the topmost name; {dotted name: text} of the rest).
    """
    different: dict[str, list[str]] = {}
    common: dict[str, str] = {}
    for name, values in _walk("", list(configs)):
        if all(_equal(value, values[0]) for value in values):
            common[name] = short(values[0])
        else:
            different[name] = [ABSENT if v is _MISSING else short(v) for v in values]
    return different, common


def _walk(name: str, values: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    there = [value for value in values if value is not _MISSING]
    parts = [_parts(value) for value in there]
    partly = len(there) < len(values) and all(_equal(value, there[0]) for value in there)
    whole = partly and (not short(there[0]).endswith(_CUT) or name.count(".") >= _DEEP)
    if name and (whole or not all(parts)):
        yield name, values
        return
    for key in dict.fromkeys(key for part in parts for key in part):
        of_key = [_MISSING if v is _MISSING else _parts(v).get(key, _MISSING) for v in values]
        yield from _walk(f"{name}.{key}" if name else str(key), of_key)


def _parts(value: Any) -> Mapping[Any, Any]:
    """What has names of its own, {} for what is shown as one text."""
    if isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value):
        return dict(enumerate(value))
    return value if isinstance(value, Mapping) else {}


def _equal(first: Any, second: Any) -> bool:
    """Also of the same kind: 1 is not True, and 1.0 is 1."""
    if _MISSING in (first, second):
        return first is second
    return bool(first == second) and json.dumps(first, default=str) == json.dumps(
        second, default=str
    )
