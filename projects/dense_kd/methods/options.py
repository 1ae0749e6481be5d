"""Checks of the options of methods; each error says what was received and what is expected."""

from __future__ import annotations

import inspect
from typing import Any


def check_choices(*choices: tuple[str, str, tuple[str, ...]]) -> None:
    """Raise ValueError unless each (name of an option, value, values it may have) is in order."""
    for name, value, expected in choices:
        if value not in expected:
            raise ValueError(f"{name}={value!r}: expected one of {expected}")


def check_weights(**weights: float) -> None:
    """Raise ValueError unless all weights of a method's terms are at least 0, and one is above."""
    if min(weights.values()) < 0 or max(weights.values()) == 0:
        raise ValueError(f"{_listed(weights)}: expected weights of at least 0, and one above it")


def check_positive(**values: float) -> None:
    """Raise ValueError unless all are above 0."""
    if min(values.values()) <= 0:
        expected = "numbers" if len(values) > 1 else "a number"
        raise ValueError(f"{_listed(values)}: expected {expected} above 0")


def check_unused(method: type, because: str, **options: Any) -> None:
    """Raise ValueError if an option that does nothing beside others was changed.

    Args:
        method: the class; its constructor has the defaults.
        because: the option that makes these do nothing, as it is written.
        options: values by name.
    """
    parameters = inspect.signature(method).parameters
    for name, value in options.items():
        default = parameters[name].default
        if value != default:
            raise ValueError(
                f"{name}={value!r} does nothing with {because}; leave it at {default!r}, or change "
                f"{because.partition('=')[0]}"
            )


def _listed(values: dict[str, float]) -> str:
    *first, last = (f"{name}={value}" for name, value in values.items())
    return f"{', '.join(first)} and {last}" if first else last
