"""Warnings of detectron2, fvcore and torch that whoever runs a command can do nothing about."""

from __future__ import annotations

import warnings

KNOWN = (
    r"torch\.meshgrid: in an upcoming release",  # detectron2's anchors
    r"The given NumPy array is not writable",  # its images, which nothing writes to
    r"TypedStorage is deprecated",  # what its processes tell each other
    r"Warning: Profiler clears events",  # of profiles that have one cycle
    r"Creating a tensor from a list of numpy\.ndarrays is extremely slow",  # of a few boxes
)
"""Beginnings of the messages, as regular expressions."""


def silence() -> None:
    """Leave out the warnings of :data:`KNOWN` from here on, in this process."""
    for message in KNOWN:
        warnings.filterwarnings("ignore", message, UserWarning)
