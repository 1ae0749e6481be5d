"""Numbers of the cells of a pair, compared within their blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..cells import Cell
from ..measuring import POOLED
from ..results import StudyResults, check_block
from ..study_file import Study
from .statistics import Gain, gain

__all__ = ["ALONE", "LONGER", "MAIN_ERRORS", "PairResults", "ap", "error", "ece", "of_class"]

ALONE = "none"
"""The method of the student alone, that all others are compared with."""

LONGER = "longer"
"""The same student, trained longer."""

MAIN_ERRORS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")

Result = Mapping[str, Any]
Number = Callable[[Result], "float | None"]


@dataclasses.dataclass(frozen=True)
class PairResults:
    """The results of one pair of a study.

    Attributes:
        name, title: of the pair.
        methods: in the order of the study's file, with those that have no result.
        seeds: of the study.
        cells: {method: {seed: result}}.
        teachers: {digest of its weights: result}.
        failed: {method: seeds whose training failed}; also of the teacher.
        balanced: {method whose weights set themselves: the same with the weights as they are}.
    """

    name: str
    title: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: dict[str, dict[int, Result]]
    teachers: dict[str, Result]
    failed: dict[str, list[int]]
    balanced: dict[str, str]

    @classmethod
    def of(cls, study: Study, pair: str, found: StudyResults) -> PairResults:
        """Sort results, and check that those of a block can be compared.

        Args:
            study: that they are of.
            pair: one of its pairs.
            found: all results of the study.

        Raises:
            StudyError: two results of one block cannot.
        """
        planned = [cell for cell in study.cells() if cell.pair == pair]
        cells: dict[str, dict[int, Result]] = {}
        for result in found.students.values():
            cell = result["cell"]
            if cell["pair"] == pair:
                cells.setdefault(cell["method"], {})[cell["seed"]] = result
        failed: dict[str, list[int]] = {}
        for cell in sorted(
            (each["cell"] for each in found.failed.values()), key=lambda cell: cell["seed"]
        ):
            if cell["pair"] == pair:
                failed.setdefault(cell["method"], []).append(cell["seed"])
        for seed in study.seeds:
            check_block(
                {f"{pair}/{m}/{seed}": each[seed] for m, each in cells.items() if seed in each}
            )
        return cls(
            pair,
            study.pair_titles[pair],
            tuple(dict.fromkeys(cell.method for cell in planned)),
            study.seeds,
            cells,
            {each["weights"]: each for each in found.teachers if each["cell"]["pair"] == pair},
            failed,
            _balanced(planned),
        )

    def mean(self, method: str, number: Number, like: str | None = None) -> float | None:
        """Over the seeds that are there; None without any, and where one is undefined.

        Args:
            method: whose results are read.
            number: what of them.
            like: only the seeds that this method has, too.
        """
        seeds = self.seeds_of(method if like is None else like)
        cells = self.cells.get(method, {})
        found = [number(cells[seed]) for seed in seeds if seed in cells]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if known and len(known) == len(found) else None

    def seeds_of(self, method: str) -> list[int]:
        """Those with a result."""
        return sorted(self.cells.get(method, {}))

    def collapsed(self) -> dict[str, list[int]]:
        """{method: seeds} of the students that found nothing in any image."""
        found = {
            method: [seed for seed in self.seeds_of(method) if of[seed]["error_types"] is None]
            for method, of in self.cells.items()
        }
        return {method: found[method] for method in self.methods if found.get(method)}

    def paired(self, method: str, other: str, number: Number) -> Gain | None:
        """What ``method`` has more than ``other``, over the seeds that both have."""
        ours, theirs = self.cells.get(method, {}), self.cells.get(other, {})
        differences = []
        for seed in sorted(set(ours) & set(theirs)):
            values = number(ours[seed]), number(theirs[seed])
            if values[0] is not None and values[1] is not None:
                differences.append(values[0] - values[1])
        return gain(differences) if differences else None

    def time(self, method: str) -> float | None:
        """Of the processor, in that of the student alone: blocks may be of unlike machines, so the
        mean is over ratios within the blocks that have both; None without any."""
        ours, alone = self.cells.get(method, {}), self.cells.get(ALONE, {})
        ratios = [minutes(ours[seed]) / minutes(alone[seed]) for seed in set(ours) & set(alone)]
        return sum(ratios) / len(ratios) if ratios else None

    def gains(self) -> dict[str, Gain]:
        """{method: what it has more AP than the student alone}, of those that share a seed."""
        found = {m: self.paired(m, ALONE, ap()) for m in self.methods if m != ALONE}
        return {method: each for method, each in found.items() if each is not None}

    def share(self, method: str) -> float | None:
        """Of the gradient, that all parts of the method have together; None of none."""
        return self.mean(method, _share)

    def balance(self, method: str) -> tuple[float | None, float | None]:
        """(share, factor) that :class:`dense_kd.methods.Balance` ended with, means over seeds.

        The share is that of the second half, the factor what the weights are multiplied with.
        """
        found = (_of_balance(key) for key in ("balance_shares", "factors"))
        share, factor = (self.mean(method, number) for number in found)
        return share, factor

    def curve(self, method: str) -> list[tuple[int, float]]:
        """(iteration, mean AP over the seeds)."""
        points: dict[int, list[float]] = {}
        for result in self.cells.get(method, {}).values():
            for done, value, *_ in result["curve"]:
                points.setdefault(done, []).append(value)
        number = len(self.cells.get(method, {}))
        return [(d, sum(v) / len(v)) for d, v in sorted(points.items()) if len(v) == number]


def ap(key: str = "AP") -> Number:
    """One of COCO's metrics, on all images."""
    return lambda result: result["metrics"][POOLED].get(key)


def error(kind: str) -> Number:
    """Points of AP50 that errors of a kind cost."""
    return lambda result: (result["error_types"] or {}).get(kind)


def ece(result: Result) -> float | None:
    """Expected calibration error, in percent."""
    found = result["calibration"]
    return None if found is None else 100 * found["ece"]


def of_class(name: str) -> Number:
    """AP of a class."""
    return lambda result: ((result["per_class"] or {}).get(name) or {}).get("AP")


def minutes(result: Result) -> float:
    """Of the processor, in training proper."""
    return result["cpu_seconds"] / 60


def _of_balance(key: str) -> Number:
    def value(result: Result) -> float | None:
        found = result.get(key) or {}  # there are no shares in results of before they were kept
        return next(iter(found.values())) if len(found) == 1 else None

    return value


def _balanced(planned: Iterable[Cell]) -> dict[str, str]:
    cells = list({cell.method: cell for cell in planned}.values())
    return {
        cell.method: other.method
        for cell in cells
        for other in cells
        if cell.balance is not None
        and other == dataclasses.replace(cell, method=other.method, seed=other.seed, balance=None)
    }


def _share(result: Result) -> float | None:
    shares = {k: v for k, v in result["shares"].items() if k != "detection"}
    return sum(shares.values()) if shares else None
