"""Commits of a repository as folders."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import ComparisonError

WORKING_TREE = "."
"""Names the files of the repository as they are, with what is not committed."""


@dataclass(frozen=True)
class Checkout:
    """The files of a commit.

    Attributes:
        name: as the user gave it.
        commit: its hash; None is the working tree.
        folder: where they are.
        description: hash and subject.
    """

    name: str
    commit: str | None
    folder: Path
    description: str


def is_commit(repository: Path, name: str) -> bool:
    """Whether git knows ``name`` as one, or it is :data:`WORKING_TREE`."""
    return name == WORKING_TREE or _hash(repository, name) is not None


@contextlib.contextmanager
def checked_out(repository: Path, name: str) -> Iterator[Checkout]:
    """A temporary worktree of a commit, or the ``repository`` itself for :data:`WORKING_TREE`.

    Raises:
        ComparisonError: git knows no such commit, or cannot check it out.
    """
    if name == WORKING_TREE:
        yield Checkout(name, None, repository, "the files as they are")
        return
    commit = _hash(repository, name)
    if commit is None:
        raise ComparisonError(f"{name} is no commit of {repository}")
    description = _git(repository, "log", "-1", "--format=%h %s", commit).strip()
    with tempfile.TemporaryDirectory(prefix="dense_kd_") as parent:
        folder = Path(parent).resolve() / commit[:12]
        try:
            _git(repository, "worktree", "add", "--quiet", "--detach", str(folder), commit)
        except subprocess.CalledProcessError as error:
            raise ComparisonError(f"git cannot check out {name}: {error.stderr.strip()}") from error
        try:
            yield Checkout(name, commit, folder, description)
        finally:
            _git(repository, "worktree", "remove", "--force", str(folder))


def has_changes(repository: Path) -> bool:
    """Whether files that git knows differ from the last commit."""
    return bool(_git(repository, "status", "--porcelain", "--untracked-files=no"))


def last_commit(repository: Path) -> str | None:
    """Its hash; None if ``repository`` is not the top of a checkout, or there is no git."""
    try:
        top = _git(repository, "rev-parse", "--show-toplevel").strip()
    except (ComparisonError, subprocess.CalledProcessError):
        return None
    return _hash(repository, "HEAD") if Path(top).resolve() == repository.resolve() else None


def renamed_files(repository: Path, old: str | None, new: str | None) -> dict[str, str]:
    """{path in ``old``: path in ``new``} of the files that were moved.

    Args:
        repository: of both.
        old, new: hashes of commits; None is the working tree.
    """
    if old is None and new is None:
        return {}
    if old is None:  # git compares a commit with the working tree in this order only
        return {a: b for b, a in renamed_files(repository, new, None).items()}
    commits = [old] if new is None else [old, new]
    options = ["--find-renames", "--diff-filter=R", "--name-status", "-z"]
    fields = _git(repository, "diff", *options, *commits).split("\0")[:-1]
    return dict(zip(fields[1::3], fields[2::3]))  # each is similarity, old path, new path


def _hash(repository: Path, name: str) -> str | None:
    try:
        return _git(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
    except subprocess.CalledProcessError:
        return None


def _git(repository: Path, *arguments: str) -> str:
    # A hook of git has variables that name another repository or index.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    # Hooks of the repository are for the commits of its users.
    command = ["git", "-C", str(repository), "-c", f"core.hooksPath={os.devnull}", *arguments]
    try:
        return subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout
    except FileNotFoundError as error:
        raise ComparisonError("comparing commits needs git, which is not on the path") from error
