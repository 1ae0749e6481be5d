"""The configs of the package, which are read and not run."""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from ..config import config_folder
from ..errors import DenseKDError
from .texts import first_sentence

_SHARED = "common/"


class NothingListedError(DenseKDError, LookupError):
    """No entry has such a name."""


@dataclasses.dataclass(frozen=True)
class ConfigEntry:
    """A config of the package.

    Attributes:
        name: as :func:`dense_kd.get_config` and ``dense-kd train`` take it.
        summary: the first sentence of its docstring.
    """

    name: str
    summary: str


def configs(patterns: Sequence[str] = ()) -> list[ConfigEntry]:
    """The runs of ``configs/``, by name.

    Args:
        patterns: as of :func:`chosen`.

    Raises:
        NothingListedError: a pattern is met by none.
    """
    folder = config_folder()
    return [ConfigEntry(name, docstring_of(folder / name)) for name in chosen(names(), patterns)]


def names() -> list[str]:
    """Of all of them."""
    folder = config_folder()
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*.py")]
    return sorted(name for name in files if not name.startswith(_SHARED))


def docstring_of(path: Path) -> str:
    """The first sentence of a config's docstring."""
    return first_sentence(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))))


def chosen(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Those of ``names`` that a pattern meets; all, if there is no pattern.

    Args:
        names: of what is listed.
        patterns: with ``*``, ``?`` or ``[...]`` as in a shell, met by whole names; or a part of a
            name. Upper and lower case are the same.

    Raises:
        NothingListedError: a pattern is met by none; the message has what is near.
    """
    found = {pattern: _met(names, pattern.lower()) for pattern in patterns}
    for pattern, met in found.items():
        if not met:
            by_lower = {name.lower(): name for name in names}
            near = difflib.get_close_matches(pattern.lower(), by_lower, n=5, cutoff=0.5)
            near = [by_lower[name] for name in near]
            meant = f"did you mean {', '.join(near)}?" if near else "leave it out to see all"
            raise NothingListedError(f"nothing of {len(names)} is called {pattern!r}; {meant}")
    if not patterns:
        return list(names)
    return [name for name in names if any(name in met for met in found.values())]


def _met(names: Sequence[str], pattern: str) -> set[str]:
    if any(sign in pattern for sign in "*?["):
        return {name for name in names if fnmatch(name.lower(), pattern)}
    return {name for name in names if pattern in name.lower()}
