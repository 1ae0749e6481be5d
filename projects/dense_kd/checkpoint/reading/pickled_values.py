"""Which plain values a file of weights may hold, so that no later step is slow on them."""

from __future__ import annotations

import pickle
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import torch

MAX_BITS = 1024
"""Of an integer; hashing and printing a long one is slow."""

MAX_KEY = 1 << 60
"""Below it, an int is its own hash, so that a file cannot choose keys that collide."""

MAX_DEPTH = 100
MAX_VALUES = 10_000_000
"""In all containers; one that is referred to twice counts twice, as for who walks through it."""

_CONTAINERS = (dict, OrderedDict, Counter, list, tuple, set, frozenset)
_LEAVES = (
    type(None), bool, int, float, complex, str, bytes, torch.Tensor, np.ndarray, torch.Size,
    torch.dtype, torch.device,
)  # fmt: skip


def plain(value: Any) -> Any:
    """A value as the opcodes of pickle write it; bytearrays become bytes."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise pickle.UnpicklingError(f"an integer of {value.bit_length()} bits")
    return bytes(value) if isinstance(value, bytearray) else value


def check_key(key: Any) -> Any:
    """A key of a dict or a member of a set that is cheap to hash, as it is."""
    if type(key) in (str, bytes, bool, type(None)):
        return key
    if type(key) is int and abs(key) < MAX_KEY:
        return key
    what = f"{key}"[:40] if type(key) is int else f"a {type(key).__name__}"
    raise pickle.UnpicklingError(f"the key of a dict is {what}, expected text or a number")


def check_tree(value: Any, ignored: type) -> None:
    """Refuse what takes for ever to walk through: cycles, deep nesting, shared branches.

    Args:
        value: containers of plain values.
        ignored: a further type of leaves.
    """
    sizes: dict[int, tuple[int, int]] = {}  # {id of a container: (values in it, depth)}
    opened: set[int] = set()
    stack = [(value, False, 0)]
    while stack:
        item, walked, level = stack.pop()
        if level > MAX_DEPTH:
            raise pickle.UnpicklingError(f"containers in containers, {level} deep")
        if type(item) not in _CONTAINERS:
            _check_leaf(item, ignored)
            continue
        children = _children(item)
        if walked:
            inside = [sizes.get(id(child), (1, 0)) for child in children]
            count = 1 + sum(values for values, _ in inside)
            depth = 1 + max((depth for _, depth in inside), default=0)
            if count > MAX_VALUES or depth > MAX_DEPTH:
                raise pickle.UnpicklingError(
                    f"containers in containers, {depth} deep with {count:,} values in all"
                )
            sizes[id(item)] = count, depth
            opened.discard(id(item))
        elif id(item) in opened:
            raise pickle.UnpicklingError("a container that contains itself")
        elif id(item) not in sizes:
            opened.add(id(item))
            stack.append((item, True, level))
            stack += [(child, False, level + 1) for child in children]


def _children(container: Any) -> list[Any]:
    if not isinstance(container, dict):
        return list(container)
    children = list(container.values())
    if hasattr(container, "_metadata"):
        children.append(container._metadata)
    return children


def _check_leaf(value: Any, ignored: type) -> None:
    if not isinstance(value, (*_LEAVES, ignored)):
        raise pickle.UnpicklingError(f"a value that was not finished, {type(value).__name__}")
