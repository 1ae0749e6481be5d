"""Checks of options; each error says what was received and what is expected."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .arguments import is_finite_number, is_integer

VAL_FRACTION, SEED = 0.2, 1
"""Of the validation set that is drawn, the same for all commands where nothing else is given."""


def check_choices(*choices: tuple[str, str, tuple[str, ...]]) -> None:
    """Raise ValueError unless each (name of an option, value, values it may have) is in order."""
    for name, value, expected in choices:
        if value not in expected:
            raise ValueError(f"{name}={value!r}: expected one of {expected}")


def check_weights(**weights: float) -> None:
    """Raise ValueError unless all weights of a method's terms are at least 0, and one is above."""
    expected = "weights of at least 0, and one above it"
    _check(_is_not_negative, weights, expected)
    if max(weights.values()) == 0:
        raise ValueError(f"{_listed(weights)}: expected {expected}")


def check_numbers(**values: float) -> None:
    """Raise ValueError unless all are numbers, and finite."""
    _check(is_finite_number, values, "finite numbers" if len(values) > 1 else "a finite number")


def check_positive(**values: float) -> None:
    """Raise ValueError unless all are numbers above 0."""
    expected = "numbers above 0" if len(values) > 1 else "a number above 0"
    _check(lambda value: is_finite_number(value) and value > 0, values, expected)


def check_not_negative(**values: float) -> None:
    """Raise ValueError unless all are numbers of at least 0."""
    expected = "numbers of at least 0" if len(values) > 1 else "a number of at least 0"
    _check(_is_not_negative, values, expected)


def check_shares(**values: float) -> None:
    """Raise ValueError unless all are numbers from 0 to 1."""
    expected = "numbers from 0 to 1" if len(values) > 1 else "a number from 0 to 1"
    _check(is_share, values, expected)


def check_parts(**values: float) -> None:
    """Raise ValueError unless all are numbers of at least 0 and below 1."""
    expected = "numbers" if len(values) > 1 else "a number"
    _check(
        lambda value: is_finite_number(value) and 0 <= value < 1,
        values,
        f"{expected} of at least 0 and below 1",
    )


def check_within(**values: float) -> None:
    """Raise ValueError unless all are numbers between 0 and 1, and neither of them."""
    expected = "numbers" if len(values) > 1 else "a number"
    _check(lambda value: is_share(value) and 0 < value < 1, values, f"{expected} between 0 and 1")


def check_widths(**values: Sequence[int]) -> None:
    """Raise ValueError unless all are lists of numbers of channels."""
    _check(
        lambda value: (
            is_list(value) and len(value) > 0 and all(is_integer(v) and v > 0 for v in value)
        ),
        values,
        "the channels of one block or more, as in [256, 256, 256, 256]",
    )


def check_counts(*, at_least: int = 1, **values: int) -> None:
    """Raise ValueError unless all are whole numbers of ``at_least``."""
    expected = "whole numbers" if len(values) > 1 else "a whole number"
    _check(
        lambda value: is_integer(value) and value >= at_least,
        values,
        f"{expected} of at least {at_least}",
    )


def check_padding_multiple(padding_multiple: int | None) -> None:
    """Raise ValueError unless it is a number of pixels, or None."""
    if padding_multiple is not None and not (is_integer(padding_multiple) and padding_multiple > 0):
        raise ValueError(
            f"padding_multiple={padding_multiple!r}: expected a whole number of pixels above 0, or "
            "None"
        )


def check_flags(**values: bool) -> None:
    """Raise ValueError unless all are True or False; a word such as "false" counts as true."""
    _check(lambda value: isinstance(value, bool), values, "True or False")


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


def is_list(value: Any) -> bool:
    """Whether a value is a list, a tuple or the like, and not a word."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def is_share(value: Any) -> bool:
    """Whether a value is a number from 0 to 1."""
    return is_finite_number(value) and 0 <= value <= 1


def _check(is_right: Callable[[Any], bool], values: dict[str, Any], expected: str) -> None:
    if not all(map(is_right, values.values())):
        raise ValueError(f"{_listed(values)}: expected {expected}")


def _is_not_negative(value: Any) -> bool:
    return is_finite_number(value) and value >= 0


def _listed(values: dict[str, Any]) -> str:
    *first, last = (f"{name}={value!r}" for name, value in values.items())
    return f"{', '.join(first)} and {last}" if first else last


def split_title(text: str) -> tuple[str, str]:
    """(title, place) of what is given as PLACE or TITLE=PLACE; the title is "" if there is none.

    A text that is the name of a file or folder is that, whatever is in it.
    """
    title, separator, place = text.partition("=")
    return (title, place) if separator and not Path(text).exists() else ("", text)
