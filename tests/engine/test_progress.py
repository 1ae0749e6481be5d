"""The bar of a training: what it shows, and that nothing tears it."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import sys
from types import SimpleNamespace

import pytest
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils.logger import _ColorfulFormatter

from dense_kd.engine import progress
from dense_kd.engine.progress import ProgressBar, wants_bar

APS = {1: math.nan, 2: 20.0, 3: 18.5}
"""{iteration: what an evaluation after it finds}."""


class Terminal(io.StringIO):
    """Keeps what is written; :meth:`screen` is what one would see."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        lines, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[A|[\r\n]|[^\x1b\r\n]+", self.getvalue()):
            if part == "\x1b[A":
                row -= 1
            elif part == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif part == "\r":
                column = 0
            else:
                end = column + len(part)
                lines[row] = lines[row].ljust(column)[:column] + part + lines[row][end:]
                column = end
        return [line.rstrip() for line in lines]


class Training(TrainerBase):
    """Logs, prints and evaluates as detectron2 does, and learns nothing."""

    def run_step(self) -> None:
        self.storage.put_scalar("loss_cls", 0.5 - 0.1 * self.iter)
        self.storage.put_scalar("total_loss", 2.0 - 0.1 * self.iter)
        self.storage.put_scalar("time", 30.0)
        logging.getLogger("detectron2.utils.events").info(f"iter: {self.iter} total_loss: 2")
        logging.getLogger("dense_kd.engine").info(f"said in iteration {self.iter}")
        if self.iter in APS:
            print("half a line, ", end="")
            print("and the rest")
            print("to stderr", file=sys.stderr)
            self.storage.put_scalar("bbox/AP", APS[self.iter], smoothing_hint=False)


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    """One that is 70 columns wide, on which each state of the bar is drawn."""
    monkeypatch.setattr(progress, "PERIOD", 0.0)
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda file: (70, 20))
    return Terminal()


@pytest.fixture
def log(terminal) -> io.StringIO:
    """What goes to log.txt; the same lines go to the terminal, too, after detectron2's handler."""
    file = io.StringIO()
    added = []
    shortening = logging.StreamHandler(io.StringIO())
    names = {"root_name": "detectron2", "abbrev_name": "d2"}
    shortening.setFormatter(_ColorfulFormatter("%(name)s", **names))
    logging.getLogger("detectron2").addHandler(shortening)
    added.append((logging.getLogger("detectron2"), shortening))
    for name in ("detectron2", "dense_kd"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        for stream in (terminal, file):
            added.append((logger, logging.StreamHandler(stream)))
            logger.addHandler(added[-1][1])
    yield file
    for logger, handler in added:
        logger.removeHandler(handler)


def train(terminal: Terminal, iterations: int, training: type[Training] = Training) -> None:
    trainer = training()
    trainer.register_hooks([ProgressBar()])
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        trainer.train(0, iterations)
        assert sys.stdout is terminal


def test_the_bar_shows_what_is_done_the_time_left_the_ap_and_the_losses(terminal, log):
    seen = []

    class Watched(Training):
        def after_step(self):
            super().after_step()
            seen.append(terminal.screen()[-2:])

    train(terminal, 10, Watched)
    bar, losses = seen[4]
    assert bar.startswith(" 50%|") and "| 5/10, 0:02:30 left, AP 18.5 (best 20.0)" in bar
    assert losses == "total_loss 1.8  loss_cls 0.3"
    assert "AP 20.0" in seen[2][0] and "best" not in seen[2][0]
    assert "AP" not in seen[1][0]  # which is not a number
    assert all(len(line) <= 70 for lines in seen for line in lines)


def test_lines_stand_above_the_bar_whole_and_those_of_the_metrics_are_in_the_log_only(
    terminal, log
):
    train(terminal, 5)
    screen = terminal.screen()
    said = [f"said in iteration {i}" for i in range(5)]
    printed = ["half a line, and the rest", "to stderr"]
    first = screen.index(said[0])
    assert screen[first : first + 11] == [
        *said[:2], *printed, said[2], *printed, said[3], *printed, said[4]
    ]  # fmt: skip
    assert "100%|" in screen[-2] and "| 5/5, 0:00:00 left, AP 18.5 (best 20.0)" in screen[-2]
    assert len(screen) == first + 13 and screen[-1] == ""
    assert [line for line in log.getvalue().splitlines() if line.startswith("iter: ")] == [
        f"iter: {i} total_loss: 2" for i in range(5)
    ]


def test_a_training_that_fails_puts_everything_back(terminal, log):
    class Failing(Training):
        def run_step(self):
            super().run_step()
            if self.iter == 1:
                raise FloatingPointError("not finite")

    loggers = [logging.getLogger(name) for name in ("detectron2", "dense_kd")]
    streams = {handler: handler.stream for logger in loggers for handler in logger.handlers}
    with pytest.raises(FloatingPointError):
        train(terminal, 5, Failing)
    for handler, stream in streams.items():
        assert handler.stream is stream and not handler.filters
    terminal.write("afterwards\n")
    screen = terminal.screen()
    assert "FloatingPointError: not finite" in screen
    assert "| 1/5" in screen[-3] and screen[-2:] == ["afterwards", ""]


@pytest.mark.parametrize(
    "mode, terminal_there, bar",
    [("auto", True, True), ("auto", False, False), ("bar", False, True), ("lines", True, False)],
)
def test_a_bar_is_drawn_where_there_is_a_terminal_or_it_is_asked_for(
    mode, terminal_there, bar, monkeypatch
):
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: terminal_there))
    assert wants_bar(mode) == bar


def test_another_mode_is_refused():
    with pytest.raises(ValueError, match="progress='dots': expected one of"):
        wants_bar("dots")
