"""What a case may end in."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REFUSED = "refused"
"""An error of the project's own kind that names the file."""
REPAIRED = "repaired"
"""Read; what was left out or mended is in a list of problems, or was logged."""
SAME = "read, the same"
"""Nothing that is read of it has changed."""
VALUES = "read, other values"
"""Numbers or names that stand where such may stand, in a format without checksums."""
OUTCOMES = (REFUSED, REPAIRED, SAME, VALUES)


class Violation(Exception):
    """What no case may end in."""


@dataclass
class Case:
    """One damaged file.

    Attributes:
        rng: of this case alone.
        folder: empty at first, and the working directory.
        mutation: what was done to the file.
        names: of which an error has to say one; () is those of the files in the folder.
    """

    rng: random.Random
    folder: Path
    mutation: str = "?"
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        run: one case, of what all cases of this kind share; it gives one of :data:`OUTCOMES`. A
            DenseKDError that it raises is :data:`REFUSED`, if it names one of the files; any other
            error is a violation.
        prepare: what all cases share, made once in a folder.
        share: of the cases.
    """

    run: Callable[[Any, Case], str]
    prepare: Callable[[Path], Any]
    share: int = 1


@dataclass(frozen=True)
class Result:
    """Of one case; ``outcome`` is one of :data:`OUTCOMES`, or what is wrong."""

    index: int
    kind: str
    mutation: str
    outcome: str
    violated: bool = False
    seconds: float = 0.0
