"""A walk over the parts of a config that a run uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

PARTS = ("model", "dataloader", "optimizer", "lr_multiplier", "train")
"""What a run reads of a config; other entries are there for these to refer to."""

_NAME_IN_INTERPOLATION = re.compile(r"\$\{[^}]*\}")


def calls(node: Any, place: str) -> Iterator[tuple[str, DictConfig]]:
    """(place, LazyCall) of all calls in ``node``; not those that it only refers to."""
    if isinstance(node, DictConfig):
        if has_entries(node) and "_target_" in node:
            yield place, node
        for key in node if has_entries(node) else ():
            if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
                yield from calls(node[key], f"{place}.{key}")
    elif isinstance(node, ListConfig) and has_entries(node):
        for index in range(len(node)):
            if not OmegaConf.is_interpolation(node, index):
                yield from calls(node[index], f"{place}.{index}")


def target_of(node: DictConfig) -> Callable[..., Any] | None:
    """What a LazyCall calls, or None if that cannot be found."""
    target = node.get("_target_")
    if isinstance(target, str):
        try:
            target = locate(target)
        except Exception:  # whatever importing a module raises
            return None
    return target if callable(target) else None


def calls_of(
    node: Any, place: str, kinds: type | tuple[type, ...]
) -> Iterator[tuple[str, DictConfig]]:
    """The calls of classes ``kinds`` or their subclasses."""
    for where, call in calls(node, place):
        target = target_of(call)
        if isinstance(target, type) and issubclass(target, kinds):
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
    if not isinstance(node, (DictConfig, ListConfig)) or not has_entries(node):
        return
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_interpolation(node, key):
            for found in _NAME_IN_INTERPOLATION.findall(str(node._get_node(key)._value())):
                names.update(re.findall(r"\w+", found))
        elif not OmegaConf.is_missing(node, key):
            _collect(node[key], names)


def has_entries(node: Any) -> bool:
    """Whether a node of a config holds entries, and is not null or a reference."""
    return not (node._is_none() or node._is_missing() or node._is_interpolation())
