"""Disks that are full, without one."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from unittest import mock


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process grows above ``size`` bytes: the system refuses to write more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def fails(name: str, number: int = errno.ENOSPC, after: int = 0) -> Iterator[None]:
    """A function of ``os`` fails as the system would, after so many calls that work."""
    call, calls = getattr(os, name), []

    def failing(*args, **options):
        calls.append(args)
        if len(calls) > after:
            raise OSError(number, os.strerror(number))
        return call(*args, **options)

    with mock.patch.object(os, name, failing):
        yield
