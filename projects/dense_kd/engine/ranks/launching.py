"""The processes of a machine, and what becomes of the run if one of them ends badly."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any

from torch import multiprocessing

from ... import compat
from ...errors import EXIT_PREEMPTED, DenseKDError, Preempted
from ..stopping import StopSignals
from .errors import RankError, error_text
from .joining import Rank, joined

__all__ = ["launch"]

START_METHOD = "spawn"  # a fork cannot use a GPU
GRACE = 20.0
"""Seconds that the others get to end by themselves when one process has failed."""


def launch(
    main: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
) -> None:
    """Run ``main(*args)`` in as many processes as wanted: ``detectron2.engine.launch``, with more.

    It also works without a GPU, with gloo processes. SIGTERM, SIGUSR1 and SIGINT are handed on to
    the processes. One that fails ends the others.

    Args:
        main: of a module, so that another process finds it.
        num_gpus_per_machine: processes of this machine, with GPUs or without.
        num_machines: each has as many, and calls this.
        machine_rank: of this machine.
        dist_url: where all meet, tcp://HOST:PORT; None or "auto" is a free port of one machine.
        args: of ``main``.

    Raises:
        RankError: says which process has failed, and why.
        Preempted: they were told to stop, and can go on.
    """
    world_size = num_gpus_per_machine * num_machines
    if world_size == 1:
        main(*args)
        return
    if dist_url in (None, "auto"):
        if num_machines > 1:
            raise ValueError(f"dist_url={dist_url!r} with {num_machines} machines: give an address")
        dist_url = f"tcp://127.0.0.1:{free_port()}"
    first = machine_rank * num_gpus_per_machine
    ranks = [
        Rank(first + local, local, world_size, num_gpus_per_machine, str(dist_url))
        for local in range(num_gpus_per_machine)
    ]
    children: list[_Child] = []
    signals = StopSignals(lambda n: _send(children, n), end=lambda: _kill(children))
    try:
        with signals:
            for rank in ranks:
                children.append(_Child(rank, main, args))
            _wait(children)
    finally:
        _kill(children)
    _judge(children, signals.received)


def free_port() -> int:
    """Of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class _Report:
    """What a process says of the error that ends it.

    Attributes:
        text: for people.
        caused: whether another process is the cause.
    """

    text: str
    caused: bool = False


@dataclass
class _Child:
    """A process that is started with it."""

    rank: Rank
    main: Callable[..., Any]
    args: tuple[Any, ...]
    process: Any = field(init=False)
    reader: Any = field(init=False)
    report: _Report | None = None
    overdue: bool = False  # ended by us, as it did not end by itself

    def __post_init__(self) -> None:
        context: Any = multiprocessing.get_context(START_METHOD)
        self.reader, writer = context.Pipe(duplex=False)
        arguments = (self.rank, writer, self.main, self.args)
        self.process = context.Process(target=_be_rank, args=arguments)  # no daemon: it has workers
        self.process.start()
        writer.close()

    @property
    def code(self) -> int:
        """Its exit code; -n: it died of the signal n."""
        return self.process.exitcode

    def read(self) -> None:
        """Its report, once it is dead."""
        try:
            if self.report is None and self.reader.poll():
                self.report = _Report(**self.reader.recv())
        except (EOFError, OSError):
            pass

    def what(self) -> str:
        """What has become of it, in words."""
        if self.report is not None:
            return f"failed: {self.report.text}"
        if self.code < 0:
            name = signal.Signals(-self.code).name
            hint = " (the machine may have run out of memory: dmesg says so)"
            return f"ended by {name}{hint if name == 'SIGKILL' else ''}"
        return f"ended with exit code {self.code}, without a word"


def _be_rank(rank: Rank, writer: Any, main: Callable[..., Any], args: tuple[Any, ...]) -> None:
    compat.end_with_parent()

    def report(text: str, caused: bool = True) -> None:
        with contextlib.suppress(OSError):  # who has started this one is gone
            writer.send({"text": text, "caused": caused})

    try:
        with joined(rank, report):
            main(*args)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        ours = isinstance(error, DenseKDError)
        report(
            error_text(error) if ours else traceback.format_exc().rstrip(),
            caused=isinstance(error, RankError),
        )
        sys.exit(1)


def _wait(children: list[_Child]) -> None:
    """Until all have ended, or :data:`GRACE` after one has failed."""
    running, end = list(children), None
    while running and (end is None or time.monotonic() < end):
        connection.wait([child.process.sentinel for child in running], timeout=1.0)
        for child in list(running):
            child.read()  # or a long report would fill the pipe, and its process wait
            if child.process.exitcode is not None:
                running.remove(child)
                child.read()
                if child.code not in (0, EXIT_PREEMPTED) and end is None:
                    end = time.monotonic() + GRACE


def _send(children: Iterable[_Child], number: int) -> None:
    for child in children:
        if child.process.exitcode is None:
            os.kill(child.process.pid, number)


def _kill(children: Iterable[_Child]) -> None:
    for child in children:
        if child.process.exitcode is None:
            child.overdue = True
            child.process.kill()
            child.process.join()


def _judge(children: list[_Child], signalled: str) -> None:
    codes = {child.code for child in children} - {0}
    if not codes:
        return
    stopped = {EXIT_PREEMPTED}
    if signalled:  # before they listened to it
        number = signal.Signals[signalled]
        stopped |= {-number, 128 + number}
    if codes <= stopped:
        raise Preempted(f"Stopped by {signalled or 'one of the processes'}")
    failed = [child for child in children if child.code != 0]
    reported = [child for child in failed if child.report and not child.report.caused]
    killed = [child for child in failed if child.report is None and not child.overdue]
    said: dict[str, list[_Child]] = {}
    for child in reported or killed or failed:
        said.setdefault(child.what(), []).append(child)
    raise RankError("\n".join(_sentence(group, what) for what, group in said.items()))


def _sentence(children: list[_Child], what: str) -> str:
    ranks = [str(child.rank.rank) for child in children]
    place = f"process {ranks[0]}" if len(ranks) == 1 else f"processes {', '.join(ranks)}"
    return f"{place} of {children[0].rank.world_size} {what}"
