"""The two runs that are compared: of one config at two commits, or of two configs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...config import get_config_file
from ..checks.errors import near
from .checkouts import Checkout, renamed_files
from .errors import ComparisonError

DEFAULT_CONFIGS = tuple(
    f"configs/quickstart/{name}.py" for name in ("student", "retinanet", "gfl", "distill", "mgd")
)

_SUFFIXES = (".py", ".yaml", ".yml")


@dataclass(frozen=True)
class Run:
    """A config that the package of a checkout trains.

    Attributes:
        name: of both, to be shown.
        config: its file.
        folder: of the checkout.
    """

    name: str
    config: Path
    folder: Path


@dataclass(frozen=True)
class Pair:
    """Two runs to compare, under a title."""

    title: str
    a: Run
    b: Run


def config_file(name: str) -> Path | None:
    """The file of a config, which is given as path or as name, or None if it is none."""
    if not name.endswith(_SUFFIXES):
        return None
    if os.path.isfile(name):
        return Path(name).resolve()
    try:
        return Path(get_config_file(name))
    except FileNotFoundError:
        return None


def pairs_of_commits(
    repository: Path, a: Checkout, b: Checkout, configs: Sequence[str]
) -> list[Pair]:
    """One for each config.

    Args:
        repository: of the commits.
        a, b: the commits.
        configs: paths, or names relative to ``configs/``; without any, those of
            :data:`DEFAULT_CONFIGS` that both commits have.

    Raises:
        ComparisonError: a config, or all by default, are missing in one of the commits.
    """
    moved = renamed_files(repository, a.commit, b.commit)
    if configs:
        return [_pair(_possible_paths(repository, a, b, name), a, b, moved) for name in configs]
    found = []
    for name in DEFAULT_CONFIGS:
        try:
            found.append(_pair([name], a, b, moved))
        except ComparisonError:  # one of the commits is from before this config
            continue
    if not found:
        raise ComparisonError(
            f"{a.name} and {b.name} have none of {', '.join(DEFAULT_CONFIGS)} in common; name a "
            "config with --config-file"
        )
    return found


def _pair(names: Sequence[str], a: Checkout, b: Checkout, moved: dict[str, str]) -> Pair:
    """That of a config which has one of ``names``, or was ``moved``, in each of the commits."""
    of_a, of_b = (
        next((name for name in names if (side.folder / name).is_file()), "") for side in (a, b)
    )
    came_from = {new: old for old, new in moved.items()}
    of_a, of_b = of_a or came_from.get(of_b, ""), of_b or moved.get(of_a, "")
    if not (of_a and of_b):
        raise ComparisonError(_missing(names[0], b if of_a else a))
    run_a, run_b = (
        Run(f"{file} at {side.name}", side.folder / file, side.folder)
        for file, side in zip((of_a, of_b), (a, b))
    )
    return Pair(" -> ".join(dict.fromkeys([of_a, of_b])), run_a, run_b)


def _possible_paths(repository: Path, a: Checkout, b: Checkout, name: str) -> list[str]:
    path = Path(name).resolve()
    names = [name, f"configs/{name}"]
    if repository in path.parents:
        inside = path.relative_to(repository).as_posix()
        return [inside] if Path(name).is_absolute() else [inside, *names]
    in_commits = any((side.folder / known).is_file() for side in (a, b) for known in names)
    return names if in_commits or not path.is_file() else [str(path)]


def _missing(name: str, side: Checkout) -> str:
    configs = (side.folder / "configs").rglob("*.py")
    meant = near(name, [path.relative_to(side.folder).as_posix() for path in configs])
    hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
    return (
        f"{side.name} has no config {name}{hint} (a config outside of the repository is the same "
        "for both commits)"
    )
