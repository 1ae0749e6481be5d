"""What a single value of a config may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...arguments import is_integer, is_number


@dataclass(frozen=True)
class Rule:
    """What an option may be."""

    expected: str
    holds: Callable[[Any], bool]


def integer(least: int, note: str = "") -> Rule:
    """A whole number from ``least`` on; ``note`` says more of it."""
    return Rule(f"a whole number of at least {least}{note}", lambda v: is_integer(v) and v >= least)


def optional(rule: Rule) -> Rule:
    """What ``rule`` allows, or null."""
    return Rule(f"{rule.expected}, or null", lambda v: v is None or rule.holds(v))


def above_zero(note: str = "") -> Rule:
    """A number above 0; ``note`` says more of it."""
    return Rule(f"a number above 0{note}", lambda v: is_number(v) and v > 0)


def one_of(*names: str) -> Rule:
    """One of these texts."""
    return Rule(f"one of {', '.join(names)}", lambda v: v in names)


TEXT = Rule("a text", lambda v: isinstance(v, str))
SWITCH = Rule("true or false", lambda v: isinstance(v, bool))
ANYTHING = Rule("anything", lambda v: True)
