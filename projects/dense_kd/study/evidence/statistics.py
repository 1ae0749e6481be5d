"""Means of paired differences, with Student's t interval."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from ..errors import StudyError

__all__ = ["Gain", "gain", "mean_ranks", "ranks", "t_cdf", "t_quantile"]


@dataclasses.dataclass(frozen=True)
class Gain:
    """A mean of paired differences.

    Attributes:
        differences: in the order they were given.
        mean: of them.
        low, high: bounds of the t interval; None of fewer than two.
    """

    differences: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """Whether the interval is above 0, below, or neither: "gain", "harm" or "not shown"."""
        if self.low is not None and self.low > 0:
            return "gain"
        if self.high is not None and self.high < 0:
            return "harm"
        return "not shown"


def gain(differences: Iterable[float], confidence: float = 0.95) -> Gain:
    """mean +- t((1 + confidence) / 2, n - 1) s / sqrt(n), where s is the sample's deviation.

    Args:
        differences: at least one.
        confidence: in (0, 1).
    """
    found = tuple(differences)
    if not found:
        raise StudyError("there is no difference to take the mean of")
    number = len(found)
    mean = math.fsum(found) / number
    if number < 2:
        return Gain(found, mean, None, None)
    deviation = math.sqrt(math.fsum((each - mean) ** 2 for each in found) / (number - 1))
    half = t_quantile((1 + confidence) / 2, number - 1) * deviation / math.sqrt(number)
    return Gain(found, mean, mean - half, mean + half)


def t_cdf(value: float, freedom: int) -> float:
    """P(T <= value) of Student's t, exactly, as a finite sum.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.

    Args:
        value: any number.
        freedom: degrees of freedom, 1 or more.
    """
    if freedom < 1:
        raise StudyError(f"freedom={freedom}: expected 1 degree of freedom or more")
    angle = math.atan(value / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for number in range(1 + odd, freedom, 2):
        total += term
        term *= number / (number + 1) * cosine**2
    between = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 + between) / 2


def t_quantile(probability: float, freedom: int) -> float:
    """The value below which Student's t is with ``probability``, by bisection of :func:`t_cdf`.

    Args:
        probability: in (0, 1).
        freedom: degrees of freedom, 1 or more.
    """
    if not 0 < probability < 1:
        raise StudyError(f"probability={probability}: expected a number between 0 and 1")
    if probability < 0.5:
        return -t_quantile(1 - probability, freedom)
    low, high = 0.0, 1.0
    while t_cdf(high, freedom) < probability:
        low, high = high, 2 * high
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if t_cdf(middle, freedom) < probability else (low, middle)


def ranks(values: Mapping[str, float]) -> dict[str, float]:
    """1 for the highest; equal values share the mean of their places."""
    ordered = sorted(values.values(), reverse=True)
    return {
        name: 1 + ordered.index(value) + (ordered.count(value) - 1) / 2
        for name, value in values.items()
    }


def mean_ranks(pairs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """{name: mean of its ranks} over pairs, of the names that all of them have.

    Args:
        pairs: {name: gain} of each pair.
    """
    if not pairs:
        return {}
    common = [name for name in pairs[0] if all(name in pair for pair in pairs)]
    found = [ranks({name: pair[name] for name in common}) for pair in pairs]
    return {name: sum(each[name] for each in found) / len(found) for name in common}
