"""What a GPU would have had to do, and where it was asked for."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

PACKAGE = Path(__file__).parents[2]
_HERE = f"{Path(__file__).parent}/"


@dataclass
class Counts:
    """
    Attributes:
        root: the folder whose lines are named; the first of them on the way out counts, but none
            of the pretended GPU itself.
        kernels: operations of torch that compute something on the GPU.
        stops: times that the host waits for a result of the GPU.
        uploads: copies to the GPU that the host waits for, with all that was asked for before.
        num_bytes: read and written by the kernels.
        operations: {operation: kernels}.
        places: {(kind, operation, "file:line" under ``root``, or "elsewhere"): times}, where kind
            is "kernel", "stop" or "upload".
    """

    root: Path = PACKAGE
    kernels: int = 0
    stops: int = 0
    uploads: int = 0
    num_bytes: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    places: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, kind: str, operation: str, num_bytes: int = 0) -> None:
        """Count one, of the line that runs now."""
        if kind == "kernel":
            self.kernels += 1
            self.operations[operation] += 1
            self.num_bytes += num_bytes
        elif kind == "stop":
            self.stops += 1
        else:
            self.uploads += 1
        self.places[kind, operation, self._line()] += 1

    def include(self, other: Counts) -> None:
        """Add what was counted apart."""
        self.kernels += other.kernels
        self.stops += other.stops
        self.uploads += other.uploads
        self.num_bytes += other.num_bytes
        self.operations += other.operations
        self.places += other.places

    def report(self, kind: str) -> str:
        """Lines "times operation file:line", the most frequent first."""
        found = Counter({key[1:]: times for key, times in self.places.items() if key[0] == kind})
        return "\n".join(
            f"{times:5} {operation:24} {line}" for (operation, line), times in found.most_common()
        )

    def _line(self) -> str:
        frame: FrameType | None = sys._getframe(1)
        root = f"{self.root}/"
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith(root) and not name.startswith(_HERE):
                return f"{name[len(root) :]}:{frame.f_lineno}"
            frame = frame.f_back
        return "elsewhere"
