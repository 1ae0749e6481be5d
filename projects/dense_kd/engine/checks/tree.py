"""A walk over the parts of a config that a run uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

PARTS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
"""What a run reads of a config; other entries are there for these to refer to."""

_NAME_IN_INTERPOLATION = re.compile(r"\$\{[^}]*\}")


def calls(node: Any, place: str) -> Iterator[tuple[str, DictConfig]]:
    """(place, LazyCall) of all calls in ``node``; not those that it only refers to."""
    if isinstance(node, DictConfig) and has_entries(node) and "_target_" in node:
        yield place, node
    for key, entry in _entries(node):
        yield from calls(entry, f"{place}.{key}")


def target_of(node: DictConfig) -> Callable[..., Any] | None:
    """What a LazyCall calls, or None if that cannot be found."""
    target = select(node, "_target_")
    if isinstance(target, str):
        try:
            target = locate(target)
        except Exception:  # whatever importing a module raises
            return None
    return target if callable(target) else None


def is_call_of(node: Any, kinds: type | tuple[type, ...]) -> bool:
    """Whether a node is the call of a class of ``kinds`` or of a subclass."""
    target = target_of(node) if isinstance(node, DictConfig) else None
    return isinstance(target, type) and issubclass(target, kinds)


def calls_of(
    node: Any, place: str, kinds: type | tuple[type, ...]
) -> Iterator[tuple[str, DictConfig]]:
    """The calls of classes ``kinds`` or their subclasses."""
    for where, call in calls(node, place):
        if is_call_of(call, kinds):
            yield where, call


def select(node: Any, path: str, default: Any = None) -> Any:
    """The value at ``path``, or ``default`` where there is none."""
    for key in path.split("."):
        if not isinstance(node, DictConfig) or not has_entries(node) or key not in node:
            return default
        try:
            node = node[key]
        except OmegaConfBaseException:  # missing, or it refers to nothing
            return default
    return default if node is None else node


def referred_names(cfg: DictConfig) -> set[str]:
    """The names in all ``${...}`` of the parts of a config."""
    names: set[str] = set()
    for part in PARTS:
        if part in cfg and isinstance(cfg._get_node(part), (DictConfig, ListConfig)):
            _collect(cfg[part], names)
    return names


def _collect(node: Any, names: set[str]) -> None:
    for _, entry in _entries(node):
        if entry._is_interpolation():
            for found in _NAME_IN_INTERPOLATION.findall(str(entry._value())):
                names.update(re.findall(r"\w+", found))
        else:
            _collect(entry, names)


def _entries(node: Any) -> Iterator[tuple[str | int, Any]]:
    """(key, node) of what ``node`` holds, as it is written: references are not followed."""
    if isinstance(node, (DictConfig, ListConfig)) and has_entries(node):
        for key in node.keys() if isinstance(node, DictConfig) else range(len(node)):
            yield key, node._get_node(key, validate_access=False)


def unresolved(node: Any, place: str) -> Iterator[str]:
    """What has no value or refers to nothing, below and at ``place``, in the words of an error.

    Arguments of LazyCalls are left to the check of these, which knows what is given later.
    """
    is_call = isinstance(node, DictConfig) and "_target_" in node
    for key, entry in _entries(node):
        where = f"{place}.{key}"
        if is_call and (entry._is_missing() or entry._is_interpolation()):
            continue
        if entry._is_missing():
            yield f"{where} has no value yet (???); give it one"
        elif not entry._is_interpolation():
            yield from unresolved(entry, where)
        else:
            try:
                entry._dereference_node()
            except OmegaConfBaseException as error:
                why = str(error).splitlines()[0]
                yield f"{where}: {entry._value()} refers to nothing ({why})"


def has_entries(node: Any) -> bool:
    """Whether a node of a config holds entries, and is not null or a reference."""
    return not (node._is_none() or node._is_missing() or node._is_interpolation())
