"""The error of this folder, and how it words what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ...errors import DenseKDError


class RunError(DenseKDError, ValueError):
    """A run that cannot work; the message lists all that is wrong with it, and what to do."""

    def __init__(self, problems: Iterable[str]):
        self.problems = list(dict.fromkeys(problems))
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"this run cannot start:\n{lines}")


def near(name: str, known: Iterable[str], count: int = 3, likeness: float = 0.6) -> list[str]:
    """Those of ``known`` that resemble ``name``, best first."""
    return difflib.get_close_matches(str(name), sorted(set(known)), n=count, cutoff=likeness)


def choice(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown ``name``: what is near, and what there is."""
    known = sorted(set(known))
    matches = near(name, known)
    meant = f"did you mean {' or '.join(matches)}? There is" if matches else "there is"
    return f"{meant}: {', '.join(known) or 'nothing'}"
