"""Bars on a terminal for trainings that are processes of their own, from their metrics.json."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

__all__ = ["ProcessBars"]


class ProcessBars:
    """A line for each training at the bottom of the terminal: what is done, the time left, the AP
    so far and the loss. What is printed meanwhile has to go through ``tqdm.write``."""

    def __init__(self) -> None:
        self._iterations: dict[str, int] = {}
        self._bars: dict[str, tqdm[Any]] = {}
        self._positions: dict[str, int] = {}

    def expect(self, title: str, iterations: int) -> None:
        """Know a training that will begin, and how many iterations it has."""
        self._iterations[title] = iterations

    def _bar_of(self, title: str) -> tqdm[Any]:
        """The bar of a training, in the first line that is free; trainings that wait have none."""
        if title not in self._bars:
            taken = self._positions.values()
            self._positions[title] = next(n for n in range(len(taken) + 1) if n not in taken)
            self._bars[title] = tqdm(
                total=self._iterations[title],
                desc=f"{title:{max(map(len, self._iterations))}}",
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
                position=self._positions[title],
                leave=False,
                file=sys.stderr,
                dynamic_ncols=True,
            )
        return self._bars[title]

    def show(self, title: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Draw how far a training is.

        Args:
            title: of the training.
            records: what its metrics.json holds.
        """
        bar = self._bar_of(title)
        steps = [record for record in records if "total_loss" in record]
        if not steps:
            return
        bar.n = min(steps[-1]["iteration"] + 1, bar.total)
        bar.set_postfix_str(", ".join(_said(bar.n >= bar.total, steps, records)), refresh=False)
        bar.refresh()

    def remove(self, title: str) -> None:
        """Take away the line of a training that has ended."""
        if title in self._bars:
            self._bars.pop(title).close()
            del self._positions[title]

    def close(self) -> None:
        """Take away all lines."""
        for bar in self._bars.values():
            bar.close()


def _said(
    ended: bool, steps: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]]
) -> list[str]:
    last, said = steps[-1], []
    if ended:
        said.append("evaluating")
    elif last.get("eta_seconds") is not None:
        said.append(f"{datetime.timedelta(seconds=int(last['eta_seconds']))} left")
    aps = [record["bbox/AP"] for record in records if record.get("bbox/AP") is not None]
    if aps:
        said.append(f"AP {aps[-1]:.1f}")
    if last["total_loss"] is not None:
        said.append(f"total_loss {last['total_loss']:.3f}")
    return said
