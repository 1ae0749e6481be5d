"""The bar of a training on a terminal: what is done, the time left, the AP so far, the losses."""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

from detectron2.engine import HookBase
from tqdm import tqdm

MODES = ("auto", "bar", "lines")
"""How a training shows how far it is: "auto" is "bar" where stderr is a terminal."""

PERIOD = 0.5
"""Seconds between two states of the bar."""

_LOGGERS = ("detectron2", "dense_kd", "fvcore")
# Logs a line of losses every so often, as the bar has them. Detectron2's formatter writes the short
# name into the record, for all handlers after it.
_METRICS = ("detectron2.utils.events", "d2.utils.events")
_WINDOW = 20  # iterations over which losses are smoothed, as in detectron2's lines


def wants_bar(mode: str) -> bool:
    """Whether a mode of :data:`MODES` means a bar in this process.

    Raises:
        ValueError: there is no such mode.
    """
    if mode not in MODES:
        raise ValueError(f"progress={mode!r}: expected one of {MODES}")
    return mode == "bar" or (mode == "auto" and sys.stderr.isatty())


class ProgressBar(HookBase):
    """Two lines at the bottom of the terminal, below what is logged and printed meanwhile.

    Registered as the last hook of a trainer whose ``IterationTimer``
    is an earlier one. Detectron2's lines of losses are left out on the terminal; all lines go to
    the files they would go to. Both are put back when the training ends, however it does.
    """

    def __init__(self) -> None:
        self._ending = contextlib.ExitStack()
        self._bars: list[Any] = []
        self._shown = 0.0
        self._best = -math.inf

    def before_train(self) -> None:
        """Draw the two lines, and let everything else appear above them."""
        options = {"file": sys.stderr, "dynamic_ncols": True, "miniters": 1}
        bar = tqdm(
            total=self.trainer.max_iter,
            initial=self.trainer.start_iter,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
            **options,
        )
        losses = tqdm(bar_format="{desc}", leave=False, position=1, **options)
        self._bars = [bar, losses]
        self._ending.enter_context(_above(self.write))

    def after_step(self) -> None:
        """Draw the state of the training, if that was long enough ago."""
        if time.monotonic() - self._shown >= PERIOD:
            self._show(self.trainer.iter + 1)

    def after_train(self) -> None:
        """Leave the last state, and put back what was changed."""
        self._ending.close()
        if self._bars:
            self._show(self.trainer.iter)  # the one that failed, or one more than the last
            for bar in reversed(self._bars):
                bar.close()
            self._bars = []

    def write(self, text: str, stream: TextIO) -> None:
        """Write whole lines to a stream without tearing the bar."""
        with tqdm.get_lock():
            for bar in self._bars:
                bar.clear(nolock=True)
            stream.write(text)
            stream.flush()
            for bar in self._bars:
                bar.refresh(nolock=True)

    def _show(self, done: int) -> None:
        self._shown = time.monotonic()
        bar, losses = self._bars
        bar.n = done
        bar.set_postfix_str(", ".join([*self._time_left(done), *self._ap()]), refresh=False)
        smoothed = self.trainer.storage.latest_with_smoothing_hint(_WINDOW)
        terms = {name: value for name, (value, _) in smoothed.items() if "loss" in name}
        order = sorted(terms, key=lambda name: name != "total_loss")  # the others as they came
        text = "  ".join(f"{name} {terms[name]:.4g}" for name in order)
        losses.set_description_str(text, refresh=False)
        for each in self._bars:
            each.refresh()

    def _time_left(self, done: int) -> Iterator[str]:
        if "time" in self.trainer.storage.histories():  # of an iteration, without evaluations
            step = self.trainer.storage.history("time").median(1000)
            left = datetime.timedelta(seconds=int(step * (self.trainer.max_iter - done)))
            yield f"{left} left"

    def _ap(self) -> Iterator[str]:
        latest = self.trainer.storage.latest()
        aps = {name: ap for name, (ap, _) in sorted(latest.items()) if name.endswith("/AP")}
        ap = aps.get("bbox/AP", next(iter(aps.values()), math.nan))
        if math.isfinite(ap):  # COCO does not define that of no detections
            self._best = max(self._best, ap)
            best = f" (best {self._best:.1f})" if self._best > ap else ""
            yield f"AP {ap:.1f}{best}"


class _Lines:
    """A stream that hands on whole lines, for a bar would be drawn behind the half of one."""

    def __init__(self, stream: TextIO, write: Callable[[str, TextIO], None]):
        self._stream = stream
        self._write = write
        self._rest = ""

    def write(self, text: str) -> int:
        lines, end, self._rest = (self._rest + text).rpartition("\n")
        if end:
            self._write(lines + end, self._stream)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def finish(self) -> None:
        self._stream.write(self._rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _above(write: Callable[[str, TextIO], None]) -> Iterator[None]:
    """Give ``write`` what goes to the terminal: what is printed, warnings, and the logs' lines."""
    stdout, stderr = sys.stdout, sys.stderr
    lines = {id(stream): _Lines(stream, write) for stream in (stdout, stderr)}
    changed: list[tuple[logging.StreamHandler[Any], Any]] = []
    for logger in map(logging.getLogger, _LOGGERS):
        for handler in logger.handlers:
            stream = getattr(handler, "stream", None)
            if isinstance(handler, logging.StreamHandler) and id(stream) in lines:
                changed.append((handler, stream))
                handler.setStream(lines[id(stream)])
                handler.addFilter(_is_no_line_of_metrics)
    sys.stdout, sys.stderr = cast("list[TextIO]", [lines[id(stdout)], lines[id(stderr)]])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr
        for handler, stream in changed:
            handler.setStream(stream)
            handler.removeFilter(_is_no_line_of_metrics)
        for stream in lines.values():
            stream.finish()


def _is_no_line_of_metrics(record: logging.LogRecord) -> bool:
    return record.name not in _METRICS
