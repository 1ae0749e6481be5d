"""What all errors of this package are that its user can mend."""

from __future__ import annotations


class DenseKDError(Exception):
    """Something that was given cannot work. The message says what was received, what was expected
    and what to do, so that command lines print it without a traceback."""


class MissingExtraError(DenseKDError, ImportError):
    """A package that not everybody needs is not installed. The message names the extra."""


EXIT_PREEMPTED = 75
"""The exit code of a command that was told to stop and has kept what it needs to go on.

It is EX_TEMPFAIL of sysexits.h, "try again later": no shell gives it for a signal (those are
128 + n, also of a process that was killed before it could save), and no Python for an error (1)
or wrong arguments (2), so that a scheduler's script can start the same command again for this code
alone.
"""


class Preempted(SystemExit):
    """A training was told to stop, by a signal or its time limit, and can go on.

    As a SystemExit it ends a program with :data:`EXIT_PREEMPTED`, without a traceback.
    """

    def __init__(self, message: str):
        super().__init__(EXIT_PREEMPTED)
        self.message = message

    def __str__(self) -> str:
        return self.message
