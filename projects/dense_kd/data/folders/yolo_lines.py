"""What follows the class in a line of YOLO's labels."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence

from ..build import DatasetError

Box = tuple[float, float, float, float]

_FAR = 0.1
"""Of a box's side, by which a key point of it may lie outside."""
_ENOUGH = 10  # lines, to judge by what all have in common


class LineReader:
    """Reads boxes from the numbers of lines, and sees where all may be of another kind.

    A box has four numbers (x and y of its centre, width, height). With ``keypoints`` it may have
    that many points after it; otherwise a score may follow, a score and the number of a track, or
    the line is a polygon of at least three points.
    """

    def __init__(self, keypoints: tuple[int, int] | None):
        """
        Args:
            keypoints: (number, numbers of each: 2 or 3) that every box has; None if they have none.
        """
        self.expected = "a class and a box in numbers"
        """In words."""
        self._values: int | None = None
        if keypoints is not None:
            self._values = 4 + keypoints[0] * keypoints[1]
            self.expected = f"a class, a box and {keypoints[0]} key points in numbers"
        self._counts: Counter[int] = Counter()
        self._filled: dict[tuple[int, int], list[float]] = defaultdict(list)

    def box(self, values: Sequence[float]) -> Box | None:
        """x1, y1, x2, y2 of a line; None if it has a number of values that none has.

        Args:
            values: that follow the class.
        """
        count = len(values)
        if count in (4, 5) or count == self._values or count - 1 == self._values:
            return _box(values)
        if self._values is not None or count < 6:
            return None
        if count == 6 and 0 <= values[4] <= 1 <= values[5] and values[5].is_integer():
            return _box(values)
        self._look_for_points(values)
        if count % 2:
            return None
        xs, ys = values[::2], values[1::2]
        return min(xs), min(ys), max(xs), max(ys)

    def check(self, where: str) -> None:
        """Refuse polygons that are surely boxes with key points.

        Args:
            where: the labels, for the message.

        Raises:
            DatasetError: all have one number of values, the first four are a box around the others,
                and these fill it. No polygons do.
        """
        if len(self._counts) != 1 or sum(self._counts.values()) < _ENOUGH:
            return
        count, lines = next(iter(self._counts.items()))
        for size in (2, 3):
            filled = self._filled[count, size]
            if len(filled) >= 0.95 * lines and statistics.median(filled) >= 0.5:
                raise DatasetError(
                    f"{where}: all {lines} lines that are longer than a box have {count} numbers "
                    "after the class, and the first four are a box around the others, so these "
                    "seem to be its key points; expected boxes or polygons. Say in data.yaml what "
                    f"they are, as in kpt_shape: [{(count - 4) // size}, {size}]"
                )

    def _look_for_points(self, values: Sequence[float]) -> None:
        """Count the line, and how far points of two or three numbers would fill its box."""
        count = len(values)
        self._counts[count] += 1
        x, y, width, height = values[:4]
        for size in (2, 3):
            if (count - 4) % size or min(width, height) <= 0:
                continue
            groups = [values[i : i + size] for i in range(4, count, size)]
            if size == 3 and any(group[2] not in (0, 1, 2) for group in groups):
                continue
            # What is not seen is at 0, 0.
            xs = [(group[0] - x) / width for group in groups if any(group[:2])]
            ys = [(group[1] - y) / height for group in groups if any(group[:2])]
            if xs and max(map(abs, [*xs, *ys])) <= 0.5 + _FAR:
                self._filled[count, size].append(max(max(xs) - min(xs), max(ys) - min(ys)))


def _box(values: Sequence[float]) -> Box:
    x, y, width, height = values[:4]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
