"""What a callable says about its arguments: names, and plain types that a value must have."""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeGuard  # of Python 3.10

_PLAIN = {"int": int, "float": float, "bool": bool, "str": str, "None": type(None)}
# An annotation that is nothing but a list, as `list[int]` or `Sequence[str] | None`.
_LISTS = re.compile(
    r"(?:typing\.|collections\.abc\.)?([Ll]ist|[Tt]uple|Sequence)\[[^|]*\](?: \| None)?"
)
# The same of what has entries, as `dict[str, float]` or `Optional[Mapping[str, Any]]`.
_ENTRIES = re.compile(
    r"(?:typing\.)?(?:Optional\[)?(?:typing\.|collections\.abc\.)?([Dd]ict|Mapping)\b[^|]*"
    r"(?: \| None)?"
)
_NULLABLE = re.compile(r"\b(None|Optional|Any|object)\b")
_EXPECTED = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
}


def parameters_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """Of a call of ``target`` by keywords; None if it does not tell.

    A class with ``**kwargs`` is taken to hand them to the next class that it inherits from.
    """
    try:
        parameters = dict(inspect.signature(target).parameters)
        for base in target.__mro__[1:] if isinstance(target, type) else ():
            if not takes_any(parameters):
                break
            if "__init__" not in vars(base):
                continue
            passed = dict(inspect.signature(vars(base)["__init__"]).parameters)
            passed.pop("self", None)
            own = {k: p for k, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
            parameters = {**{name: _optional(p) for name, p in passed.items()}, **own}
    except (TypeError, ValueError):  # of some builtins
        return None
    return parameters


def _optional(parameter: inspect.Parameter) -> inspect.Parameter:
    """Of a base class: whether the class itself gives what has no default is not known."""
    variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    if variable or parameter.default is not parameter.empty:
        return parameter
    return parameter.replace(default=...)


def accepts(parameters: Mapping[str, inspect.Parameter], name: str) -> bool:
    """Whether ``name`` can be given as a keyword."""
    parameter = parameters.get(name)
    if parameter is not None and parameter.kind in (
        parameter.POSITIONAL_OR_KEYWORD,
        parameter.KEYWORD_ONLY,
    ):
        return True
    return takes_any(parameters)


def takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether there is a ``**kwargs``."""
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def missing_arguments(parameters: Mapping[str, inspect.Parameter], given: set[str]) -> list[str]:
    """The names of arguments without a default that are not ``given``."""
    return [
        name
        for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.default is p.empty
        and name not in given
    ]


def type_problem(parameter: inspect.Parameter, value: Any) -> str | None:
    """What was expected instead of ``value``, or None if it may be an argument of ``parameter``.

    Only numbers, texts, truth values and null are looked at, and only what is annotated with
    nothing else. Other parameters take no text if their default is a truth value, or if it is a
    number and their annotation has no text; and no null if they are needed and their annotation
    has none.
    """
    if isinstance(value, Real) and value != value:
        return "a number that is not NaN"
    if isinstance(value, Integral) and not isinstance(value, bool) and not is_integer(value):
        return "a whole number of 64 bits"
    if not isinstance(value, (bool, str, Real, type(None))):
        return None
    if value is None and parameter.default is None:
        return None
    kinds = _plain_types(parameter.annotation)
    annotation = _text(parameter.annotation)
    if not kinds and value is None:
        needed = parameter.default is parameter.empty or parameter.default is ...
        refused = needed and annotation and not _NULLABLE.search(annotation)
        return f"{annotation}, not null" if refused else None
    if not kinds and _LISTS.fullmatch(annotation):
        return "a list"
    if not kinds and _ENTRIES.fullmatch(annotation):
        return "entries (a dict)"
    if not kinds:
        return _problem_of_default(parameter) if isinstance(value, str) else None
    if any(_is_a(value, kind) for kind in kinds):
        return None
    return " or ".join(_EXPECTED[kind] for kind in kinds)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number; true and false are none, nor what 64 bits cannot hold."""
    return is_integer(value) or (isinstance(value, Real) and not isinstance(value, Integral))


def is_finite_number(value: Any) -> TypeGuard[float]:
    """:func:`is_number`, and neither NaN nor infinite."""
    return is_number(value) and math.isfinite(value)


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number by its type, of 64 bits; true and false are none."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and -(2**63) <= value < 2**63


def _is_a(value: Any, kind: type) -> bool:
    if kind is int:
        return is_number(value) and float(value).is_integer()
    if kind is float:
        return is_number(value)
    if kind is bool:  # 0 and 1 as well
        return isinstance(value, bool) or (is_integer(value) and value in (0, 1))
    return isinstance(value, kind)


def _problem_of_default(parameter: inspect.Parameter) -> str | None:
    """What is expected instead of a text by a parameter whose annotation is not plain."""
    if isinstance(parameter.default, bool):
        return _EXPECTED[bool]
    annotated = parameter.annotation is not parameter.empty
    if annotated and is_number(parameter.default):
        if not re.search(r"\b(str|Any)\b", str(parameter.annotation)):
            return _EXPECTED[float]
    return None


def _text(annotation: Any) -> str:
    """An annotation as it is written, "" if there is none."""
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def _plain_types(annotation: Any) -> list[type]:
    """The types of an annotation, or [] if one of them is not plain."""
    if annotation is inspect.Parameter.empty:
        return []
    if isinstance(annotation, str):
        text = annotation.replace("typing.", "").strip()
        for union, rest in (("Optional[", "|None"), ("Union[", "")):
            if text.startswith(union) and text.endswith("]"):
                text = text[len(union) : -1].replace(",", "|") + rest
        kinds: list[Any] = [_PLAIN.get(part.strip()) for part in text.split("|")]
    elif "Union" in getattr(typing.get_origin(annotation), "__name__", ""):
        kinds = list(typing.get_args(annotation))
    else:
        kinds = [annotation]
    return kinds if all(any(kind is plain for plain in _EXPECTED) for kind in kinds) else []
