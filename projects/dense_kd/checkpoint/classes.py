"""The names of the classes that a checkpoint was trained for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from .errors import CheckpointError

CLASS_NAMES = "class_names"
"""Of the names in the files that we convert."""

_PLACES = (
    (CLASS_NAMES,),
    ("dense_kd", CLASS_NAMES),  # of a run of ours
    ("meta", "CLASSES"),  # mmdetection 2.x
    ("meta", "dataset_meta", "classes"),  # 3.x
    ("meta", "dataset_meta", "CLASSES"),
    ("dataset_meta", "classes"),
    ("dataset_meta", "CLASSES"),
    ("CLASSES",),
)


def class_names(content: Any) -> list[str] | None:
    """The names of the classes in the content of a file, in their order; None if it says none."""
    for place in _PLACES:
        found = content
        for key in place:
            found = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(found, str):  # of one class
            found = [found]
        if isinstance(found, Sequence) and found and all(isinstance(x, str) for x in found):
            return list(found)
    return None


def check_class_names(model: nn.Module, names: Sequence[str] | None, source: str) -> None:
    """Compare ``names`` of a file with those of a model, or with its number of classes.

    Upper case and "_" for a blank make no difference.

    Args:
        model: its ``class_names`` may be None.
        names: None if the file has none; nothing is compared then.
        source: named in the error.

    Raises:
        CheckpointError: the names are others, or in another order.
    """
    if names is None or not hasattr(model, "num_classes"):
        return
    ours = getattr(model, "class_names", None)
    if ours is None:
        if len(names) != model.num_classes:
            raise CheckpointError(
                f"{source} was trained for {len(names)} classes, {list(names)[:10]}..., the config "
                f"of {type(model).__name__} says num_classes={model.num_classes}"
            )
        return
    if _plain(names) == _plain(ours):
        return
    moved = in_another_order(names, ours)
    what = "the same classes in another order" if moved else "other classes"
    differing = [
        (i, a, b) for i, (a, b) in enumerate(zip(names, ours)) if _plain([a]) != _plain([b])
    ]
    first = ", ".join(f"class {i} is {a!r} and not {b!r}" for i, a, b in differing[:3])
    raise CheckpointError(
        f"{source} was trained for {what}: it has {len(names)}, the config of "
        f"{type(model).__name__} {len(ours)} class names" + (f"; {first}" if first else "") + ". "
        "Give the class_names of the file to the model that reads it"
    )


def in_another_order(names: Sequence[str], others: Sequence[str]) -> list[int]:
    """The places at which two lists of the same names differ; [] if they are not the same names."""
    ours, theirs = _plain(names), _plain(others)
    if sorted(ours) != sorted(theirs):
        return []
    return [index for index, name in enumerate(ours) if name != theirs[index]]


def _plain(names: Sequence[str]) -> list[str]:
    return [" ".join(name.casefold().replace("_", " ").split()) for name in names]
