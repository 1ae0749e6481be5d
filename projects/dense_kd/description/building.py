"""Build what a file describes, of allowed classes alone."""

from __future__ import annotations

from typing import Any

from ..checkpoint import CheckpointError
from .allowed import NAMED, Target, allowed

TARGET = "_target_"


def build_described(value: Any, place: str, more: dict[str, Target] | None = None) -> Any:
    """What described calls make.

    detectron2's ``instantiate`` makes the same of the same containers, but would import whatever
    they name, and OmegaConf would run the resolvers of ``${...}``.

    Args:
        value: dicts, lists, texts and numbers; a dict with ``_target_`` is a call.
        place: what ``value`` is, for errors.
        more: what may be named in addition, see :func:`.allowed.names_of`.

    Raises:
        CheckpointError: it names what is not allowed, or holds something else; or a call fails.
    """
    if isinstance(value, list):
        return [build_described(item, f"{place}[{i}]", more) for i, item in enumerate(value)]
    if isinstance(value, str) and "${" in value:
        raise CheckpointError(f"{place} is {value[:100]!r}, a reference; expected a value")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise CheckpointError(f"{place} is a whole number of more than 64 bits")
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise CheckpointError(
            f"{place} is a {type(value).__name__}; expected texts, numbers, lists, and dicts with "
            "texts as keys"
        )
    if TARGET not in value:
        return {key: build_described(item, f"{place}.{key}", more) for key, item in value.items()}
    name = value[TARGET]
    try:
        target = allowed(name, more)
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from None
    if name == NAMED:

        def target(name: Any) -> Target:
            return allowed(name, more)

    arguments = {
        key: build_described(item, f"{place}.{key}", more)
        for key, item in value.items()
        if key != TARGET
    }
    try:
        return target(**arguments)
    except CheckpointError as error:
        raise CheckpointError(f"{place}: {error}") from error
    except Exception as error:  # of any constructor
        raise CheckpointError(
            f"{place}: {name} cannot be built: {type(error).__name__}: {error}"
        ) from error
