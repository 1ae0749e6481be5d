"""Signals that ask for an end: the first one is kept, a second one ends at once."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ..errors import Preempted

__all__ = ["SECOND_AFTER", "SIGNALS", "Stop", "StopSignals", "ends_as_preempted"]

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""What schedulers send some time before they kill, and Ctrl-C."""

SECOND_AFTER = 1.0
"""Seconds. One stop may arrive as several signals: a scheduler tells all processes, and who has
started them (torchrun, ``dense-kd``) hands on its own. Those of this time are one."""

_shielding: StopSignals | None = None


class StopSignals:
    """While it is entered, :data:`SIGNALS` end the process no more, but call a function once.

    A second signal has its usual effect. In the forks of this process (loader workers) the signals
    have none, but for a SIGTERM that this process sends: a signal to a group of processes would
    else take the workers of an iteration that is to be finished. Outside of the main thread, which
    alone may handle signals, entering it does nothing.

    Attributes:
        received: name of the first one, "" before.
    """

    def __init__(
        self, act: Callable[[int], Any], end: Callable[[], Any] | None = None, shield: bool = False
    ):
        """
        Args:
            act: gets the number of the first signal; it may raise.
            end: called before a second signal has its effect; with None it has that even where no
                Python code runs any more, as in an exchange with a process that is gone.
            shield: forks get no signals, see above; else the handlers that they inherit do nothing.
        """
        self.received = ""
        self._act = act
        self._end = end
        self._shield = shield
        self._process = os.getpid()
        self._at = math.inf
        self._previous: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> StopSignals:
        global _shielding
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
            if self._shield:
                _shielding = self
        return self

    def __exit__(self, *_: object) -> None:
        global _shielding
        if _shielding is self:
            _shielding = None
        with self._lock:
            for number, handler in self._previous.items():
                # None is that of a library in C, which Python cannot put back.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        now = time.monotonic()
        if not self.received:
            self.received, self._at = signal.Signals(number).name, now
            if self._end is None:
                timer = threading.Timer(SECOND_AFTER, self._second_is_final)
                timer.daemon = True
                timer.start()
            self._act(number)
        elif self._end is not None and now - self._at >= SECOND_AFTER:
            self._end()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _second_is_final(self) -> None:
        libc = ctypes.CDLL(None)  # Python's own lets the main thread alone do so, between two steps
        libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
        with self._lock:
            for number in self._previous:  # none after it was left
                libc.signal(int(number), int(signal.SIG_DFL))


class Stop:
    """Whether a training is to stop: it was told by a signal, or its time is over.

    As a context manager it handles signals, see :class:`StopSignals`.
    """

    def __init__(self, max_minutes: float = 0.0):
        """
        Args:
            max_minutes: from now on, after which the training is to stop; 0 is no limit.
        """
        self._max_minutes = max_minutes
        self._deadline = time.monotonic() + 60 * max_minutes if max_minutes else math.inf
        # To raise here would be to raise anywhere, also where what is imported catches everything.
        self._signals = StopSignals(lambda number: None, shield=True)

    def __enter__(self) -> Stop:
        self._signals.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._signals.__exit__(*error)

    @property
    def signalled(self) -> bool:
        """Whether a signal has told so."""
        return bool(self._signals.received)

    @property
    def reason(self) -> str:
        """The signal or the option that tells so; "" before."""
        if self._signals.received:
            return self._signals.received
        over = time.monotonic() >= self._deadline
        return f"train.max_minutes={self._max_minutes:g}" if over else ""


@contextlib.contextmanager
def ends_as_preempted() -> Iterator[None]:
    """Of a command that goes on where it was stopped: a signal ends it as :class:`Preempted`."""

    def end(number: int) -> None:
        message = f"Stopped by {signal.Signals(number).name}; the same command goes on"
        print(message, file=sys.stderr)
        raise Preempted(message)

    with StopSignals(end):
        yield


def _shield_fork() -> None:
    """In a new fork: block the signals, and wait for a SIGTERM of the parent beside the work."""
    if _shielding is None:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_wait_for_parent, args=(os.getppid(),), daemon=True).start()


def _wait_for_parent(parent: int) -> None:
    while os.getppid() == parent:
        with contextlib.suppress(InterruptedError):
            if signal.sigwaitinfo({signal.SIGTERM}).si_pid == parent:
                break
    os._exit(0)


os.register_at_fork(after_in_child=_shield_fork)
