"""What was left out of a dataset, or mended, and why."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ...checkpoint import replace_atomically

_ACTIONS = ("dropped", "repaired", "noted")
_PLURALS = {"box": "boxes", "class": "classes"}


@dataclass(frozen=True)
class Problem:
    """One image, box or other part of a dataset that is not as it should be."""

    action: str
    """"dropped" (it is not in the dataset), "repaired" (it is, changed) or "noted" (as it is)."""
    what: str
    """"image", "box", "class", "file" or "folder"."""
    reason: str
    """Why, in words that all problems of this kind share."""
    file: str
    """The image or the annotation file, relative to the dataset if it lies inside."""
    item: str = ""
    """Which part of the file, as "line 3"; empty for all of it."""
    detail: str = ""
    """What was found."""

    def __str__(self) -> str:
        place = f"{self.file}, {self.item}" if self.item else self.file
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.action} {self.what}: {place}: {self.reason}{detail}"


class Problems:
    """All problems of a dataset, in the order in which they were found.

    ``len`` is their number, iteration yields each :class:`Problem`.
    """

    def __init__(self, root: Path):
        """
        Args:
            root: folder of the dataset; paths of files are shown relative to it.
        """
        self._root = root
        self._problems: list[Problem] = []

    def add(
        self,
        action: str,
        what: str,
        reason: str,
        file: Path | str,
        item: str = "",
        detail: object = "",
    ) -> None:
        """Record one problem; see :class:`Problem` for the arguments.

        Args:
            action, what, reason, item: as there.
            file: absolute, or relative to the dataset.
            detail: anything; its text is cut to a readable length.
        """
        if action not in _ACTIONS:
            raise ValueError(f"action={action!r}: expected one of {_ACTIONS}")
        shown = detail if isinstance(detail, str) else shortened(detail)
        self._problems.append(Problem(action, what, reason, self.name(file), item, shown))

    def name(self, file: Path | str) -> str:
        """The path relative to the dataset, with slashes, or as it is if it lies elsewhere."""
        path = Path(file)
        return (path.relative_to(self._root) if self._root in path.parents else path).as_posix()

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._problems)

    def __len__(self) -> int:
        return len(self._problems)

    def count(self, action: str, what: str | None = None) -> int:
        """How many were "dropped", "repaired" or "noted".

        Args:
            action: one of these three.
            what: only "image", "box", ...; None counts all.
        """
        return sum(p.action == action and what in (None, p.what) for p in self)

    def summary(self) -> str:
        """One line: how many of what were dropped, repaired or noted, by reason."""
        return "; ".join(
            f"{action} {_listed([p for p in self if p.action == action])}"
            for action in _ACTIONS
            if self.count(action)
        ) or ("no problems found")

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write a file that lists all problems, below the summary.

        Args:
            path: ending in ``.json`` for a JSON file; otherwise it is text, a line for each.

        Returns:
            the path.
        """
        path = Path(path)
        if path.suffix.lower() == ".json":
            content = {"summary": self.summary(), "problems": [asdict(p) for p in self]}
            text = json.dumps(content, ensure_ascii=False, indent=1)
        else:
            text = "\n".join([self.summary(), "", *map(str, self)])
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of files may hold bytes that are not Unicode; Python reads them as surrogates.
        encoded = f"{text}\n".encode("utf-8", errors="backslashreplace")
        replace_atomically(str(path), lambda file: file.write(encoded))
        return path


def shortened(value: object, length: int = 100) -> str:
    """``repr`` of what was read from a file, cut so that it fits into a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # of numbers with thousands of digits, of nested lists
        text = f"a {type(value).__name__}"
    return text if len(text) <= length else f"{text[:length]}..."


def _listed(problems: list[Problem]) -> str:
    """As "2 images (missing), 4 boxes (3 without area, 1 outside the image)"."""
    groups = []
    for what in dict.fromkeys(p.what for p in problems):
        reasons = Counter(p.reason for p in problems if p.what == what)
        number = sum(reasons.values())
        noun = what if number == 1 else _PLURALS.get(what, f"{what}s")
        listed = (f"{count} {reason}" for reason, count in reasons.most_common())
        why = ", ".join(listed) if len(reasons) > 1 else next(iter(reasons))
        groups.append(f"{number} {noun} ({why})")
    return ", ".join(groups)
