"""A network from a file that holds it, by itself or as a part of something larger."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import nn

from .errors import CheckpointError, listed
from .fitting import OPTIONAL_SUFFIXES, load_strictly
from .layouts.formats import convert_state, model_state
from .layouts.keys import BACKBONE
from .layouts.wrappers import clean_state
from .reading.weights import as_tensor, read_content, weights_of

logger = logging.getLogger(__name__)


def load_part(model: nn.Module, path: str) -> None:
    """Load ``path`` into ``model``, which may be a part of what the file holds.

    Every parameter and buffer of the network must be in the file with its shape, its name behind
    one prefix (as ``backbone.bottom_up.`` of a detector's backbone), and finite. What the file has
    besides is logged: a classifier's last layer, or the rest of a detector.

    Args:
        model: where to.
        path: see :func:`dense_kd.checkpoint.read_weights`.

    Raises:
        CheckpointError: the file does not hold the network, or under several prefixes.
    """
    content = read_content(path)
    state = model_state(content, source=path)
    if state is None:
        state = weights_of(content, path)  # an error, which says what it is
    own = clean_state(model)
    needed = [key for key in own if not key.endswith(OPTIONAL_SUFFIXES)]
    found = list(_prefixes(needed, state))
    if not found:
        in_detector = {f"{BACKBONE}.{key}": value for key, value in own.items()}
        conversion = convert_state(state, model=in_detector, source=path)
        if conversion is not None:
            state = conversion.weights
            found = list(_prefixes(needed, state))
    if len(found) != 1:
        raise CheckpointError(_not_held(model, path, needed, state, found))
    (prefix,) = found
    part = {
        key: as_tensor(path, prefix + key, state[prefix + key])
        for key in own
        if prefix + key in state
    }
    load_strictly(model, path, part)
    others = [key for key in state if not (key.startswith(prefix) and key[len(prefix) :] in own)]
    logger.info(
        f"Loaded {type(model).__name__} from {path}"
        + (f", where it is called {prefix}" if prefix else "")
        + (f"; {len(others)} tensors of the file are not its own" if others else "")
    )


def _prefixes(needed: Collection[str], state: Mapping[str, Any]) -> Iterator[str]:
    """What may stand before all of the names ``needed``, so that they are keys of ``state``."""
    one = max(needed, key=len)
    for key in state:
        prefix = key[: -len(one)]
        is_prefix = key == prefix + one and (not prefix or prefix.endswith("."))
        if is_prefix and all(prefix + name in state for name in needed):
            yield prefix


def _not_held(
    model: nn.Module, path: str, needed: list[str], state: Mapping[str, Any], found: list[str]
) -> str:
    name = type(model).__name__
    if found:
        return (
            f"{path} holds {name} more than once, under {', '.join(map(repr, found))}; give a file "
            "that holds it once"
        )
    missing = [key for key in needed if not any(other.endswith(key) for other in state)]
    return "\n".join([
        f"{path} does not hold {name}: of its {len(needed)} tensors, {len(missing)} are not there "
        "under any prefix" + (":" if missing else ", but they have no common one"),
        *(f"    {key}" for key in listed(missing)),
        f"The file has {len(state)} tensors, such as",
        *(f"    {key}" for key in listed([*state], 5)),
        "Give the weights of this network, or build the one that the file is of.",
    ])  # fmt: skip
