"""Memory that tensors on the CPU have left is taken again, and not asked of the system anew."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_KEPT = 1 << 30
_LARGEST = 64 << 20
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let the C library keep what tensors of up to 64 MiB have left, from here on, in this process.

    By itself it gives the memory of tensors of some MiB back when they are freed, and what is free
    at the end of its heap; the system clears every page of it for the next step. From here on up to
    1 GiB stays at that end. With images of one size a process needs as much as before at its peak;
    of sizes that vary it needs a tenth more, as pieces of some sizes do not serve others.

    Returns:
        whether it does: on Linux with glibc, unless one of the variables that this is set with,
        ``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_`` or ``GLIBC_TUNABLES``, is there.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT) and mallopt(_MMAP_THRESHOLD, _LARGEST))
