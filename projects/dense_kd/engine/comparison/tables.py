"""Two lists of losses as a table, and where they begin to differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from .recording import TOTAL

Losses = Sequence[Mapping[str, float]]
"""Of each iteration {term: value}."""


@dataclass(frozen=True)
class Row:
    """One term of one iteration; None is what a side does not have."""

    iteration: int
    term: str
    a: float | None
    b: float | None

    @property
    def differs(self) -> bool:
        """Whether they are not the same number, bit for bit; NaN is the same as NaN."""
        if self.a is None or self.b is None:
            return True
        return self.a != self.b and not (math.isnan(self.a) and math.isnan(self.b))


def rows(a: Losses, b: Losses) -> list[Row]:
    """By iteration: the terms in the order of ``a``, what only ``b`` has, and the total."""
    nothing: Mapping[str, float] = {}
    return [
        Row(iteration, term, of_a.get(term), of_b.get(term))
        for iteration, (of_a, of_b) in enumerate(zip_longest(a, b, fillvalue=nothing))
        for term in sorted(dict.fromkeys([*of_a, *of_b]), key=TOTAL.__eq__)
    ]


def first_difference(table: Sequence[Row]) -> Row | None:
    """The first row that differs."""
    return next((row for row in table if row.differs), None)


def lines(table: Sequence[Row]) -> Iterator[str]:
    """The table to print; numbers of float32 are whole in it."""
    width = max([len("term"), *(len(row.term) for row in table)])
    yield f"{'iteration':>9}  {'term':{width}}  {'A':>16}  {'B':>16}  {'B - A':>10}"
    first = first_difference(table)
    for row in table:
        values = "  ".join(f"{_number(value):>16}" for value in (row.a, row.b))
        mark = "  <- the first difference" if row is first else ""
        yield (
            f"{row.iteration:>9}  {row.term:{width}}  {values}  {_difference(row):>10}{mark}"
        ).rstrip()


def verdict(table: Sequence[Row]) -> str:
    """What the table shows, in a sentence."""
    first = first_difference(table)
    iterations = len({row.iteration for row in table})
    if first is None:
        return f"equal, bit for bit, in {iterations} iterations"
    where = f"different from iteration {first.iteration} on, first in {first.term}"
    if first.a is None or first.b is None:
        return f"{where}, which only {'B' if first.a is None else 'A'} has"
    shares = [
        abs(row.b - row.a) / max(abs(row.a), abs(row.b))
        for row in table
        if row.differs and row.a is not None and row.b is not None
    ]
    largest = max((share for share in shares if not math.isnan(share)), default=math.inf)
    return f"{where}; the largest difference is {largest:.2g} of the larger value"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.9g}"


def _difference(row: Row) -> str:
    if row.a is None or row.b is None:
        return "only in B" if row.a is None else "only in A"
    return f"{row.b - row.a:.3g}" if row.differs else "0"
