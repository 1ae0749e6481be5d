"""Trains two commits, or two configs, for some iterations, and prints their losses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path

from . import tables
from .checkouts import WORKING_TREE, checked_out, has_changes, is_commit
from .errors import ComparisonError
from .pairs import Pair, Run, config_file, pairs_of_commits
from .training import losses_of


def compare(
    a: str,
    b: str,
    *,
    repository: Path,
    configs: Sequence[str] = (),
    overrides: Sequence[str] = (),
    iterations: int = 10,
    random_teachers: bool = False,
    until_different: bool = False,
    say: Callable[[str], None] = print,
) -> bool:
    """Train the first iterations of both with one seed, and print all losses side by side.

    Args:
        a, b: two commits, or ``.`` for the files of the repository as they are; or two files of
            configs.
        repository: a checkout of this project: it has the commits, and trains two configs.
        configs: what two commits train, see :func:`.pairs.pairs_of_commits`.
        overrides: of all configs, as ``train.device=cpu``.
        iterations: how many.
        random_teachers: do without the files of teachers, whose weights come from the seed; so it
            is for two commits without ``configs``.
        until_different: end after the first config that differs.
        say: prints lines.

    Returns:
        whether all numbers are equal, bit for bit.

    Raises:
        ComparisonError: they are not two of a kind, a config is missing, or a run fails.
    """
    if iterations < 1:
        raise ComparisonError(f"{iterations} iterations: expected at least 1")
    random_teachers |= not (configs or config_file(a))
    different = []
    with _pairs(a, b, repository.resolve(), configs, say) as pairs:
        for pair in pairs:
            say(f"\n{pair.title}")
            losses = [
                losses_of(run, iterations, overrides=overrides, random_teacher=random_teachers)
                for run in (pair.a, pair.b)
            ]
            table = tables.rows(*losses)
            say("\n".join([*tables.lines(table), tables.verdict(table)]))
            if tables.first_difference(table):
                different.append(pair.title)
                if until_different:
                    break
    return not different


@contextlib.contextmanager
def _pairs(
    a: str, b: str, repository: Path, configs: Sequence[str], say: Callable[[str], None]
) -> Iterator[list[Pair]]:
    files = {name: file for name in (a, b) if (file := config_file(name))}
    if a in files and b in files:
        if configs:
            raise ComparisonError("--config-file is what two commits train; A and B are configs")
        runs = [Run(name, files[name], repository) for name in (a, b)]
        yield [Pair(f"A: {a}\nB: {b}", *runs)]
        return
    _check_commits(repository, a, b, files)
    with checked_out(repository, a) as of_a, checked_out(repository, b) as of_b:
        say(f"A: {a} ({of_a.description})\nB: {b} ({of_b.description})")
        if WORKING_TREE not in (a, b) and has_changes(repository):
            say(f"Uncommitted changes are in neither; {WORKING_TREE} is the files as they are")
        yield pairs_of_commits(repository, of_a, of_b, configs)


def _check_commits(repository: Path, a: str, b: str, files: Container[str]) -> None:
    unknown = [name for name in (a, b) if not (name in files or is_commit(repository, name))]
    if unknown:
        raise ComparisonError(
            f"{' and '.join(unknown)}: expected a commit of {repository}, {WORKING_TREE} for its "
            "files as they are, or a config, a .py that is there or in configs/"
        )
    for name, other in ((a, b), (b, a)):
        if name in files:
            raise ComparisonError(
                f"{name} is a config, {other} is not: give two configs, or two commits and what "
                "they train with --config-file"
            )
