"""What CUDA refuses, and what lets the host wait for it, by the operations of torch (aten).

Read from the behaviour and the messages of torch 2.1 to 2.12: ``TensorIterator`` for operations
per element, ``IndexingUtils``, ``Copy.cu``, ``Masked*.cu`` and ``torch.cuda.set_sync_debug_mode``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .tensor import Pretended

_INDEXING = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}
_MOVING = {"copy_", "_to_copy"}
_PRODUCTS = {"mm", "bmm", "addmm", "addmv", "mv", "dot", "baddbmm", "convolution"}

_TAKES_CPU_SCALAR = {"fill_", "fill", "masked_fill", "masked_fill_", "index_fill", "index_fill_"}
"""Beside the operations per element."""

_WAITS = {
    "_local_scalar_dense": "item", "nonzero": "nonzero", "masked_select": "masked_select",
    "equal": "equal", "bincount": "bincount", "_unique2": "unique", "unique_dim": "unique",
    "unique_consecutive": "unique", "unique_dim_consecutive": "unique", "nms": "nms",
    "_linalg_check_errors": "linalg",
}  # fmt: skip
"""{operation: what the host waits for}"""

_NO_KERNEL = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view",
    "_reshape_alias", "lift_fresh", "_local_scalar_dense", "is_same_size", "resize_", "set_",
}  # fmt: skip

_SPECIAL = {*_INDEXING, *_MOVING, *_PRODUCTS, *_TAKES_CPU_SCALAR, *_WAITS, "repeat_interleave"}


@dataclass(frozen=True)
class Operation:
    """What is known about an operation of torch.

    Attributes:
        name: without namespace and overload.
        computes: it is no view and no mere allocation.
        per_element: it takes a number on the CPU, too.
        is_random: it draws from the generator of its device.
        changes_shape: of the tensor that it is given.
        is_plain: only where its tensors are matters.
        written: indices of the arguments that it changes.
    """

    name: str
    computes: bool
    per_element: bool
    is_random: bool
    changes_shape: bool
    is_plain: bool
    written: tuple[int, ...]

    @classmethod
    @functools.cache
    def of(cls, func: Any) -> Operation:
        """``func`` is an ``OpOverload``."""
        schema, tags = func._schema, func.tags
        name = schema.name.split("::")[1]
        aliases = [x.alias_info for x in schema.returns]
        is_view = any(x is not None and not x.is_write for x in aliases)
        changes_shape = torch.Tag.inplace_view in tags
        arguments = [x.alias_info for x in schema.arguments]
        is_random = torch.Tag.nondeterministic_seeded in tags
        return cls(
            name=name,
            computes=not (is_view or changes_shape or name in _NO_KERNEL),
            per_element=torch.Tag.pointwise in tags or name in _TAKES_CPU_SCALAR,
            is_random=is_random,
            changes_shape=changes_shape,
            is_plain=not is_random and name not in _SPECIAL,
            written=tuple(i for i, x in enumerate(arguments) if x is not None and x.is_write),
        )


class Refused(RuntimeError):
    """What CUDA would not do."""


def check(
    operation: Operation, given: Sequence[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Raise what CUDA would raise.

    Args:
        operation: of torch or torchvision.
        given: the tensors among its arguments.
        args, kwargs: with at least one tensor or device of the GPU.

    Raises:
        Refused: see there.
    """
    name = operation.name
    on_gpu = [x for x in given if isinstance(x, Pretended)]
    on_cpu = [x for x in given if not isinstance(x, Pretended)]
    if any(x.is_meta for x in on_cpu):
        raise NotImplementedError(
            f"{name}: a tensor came to the GPU in a way that is not pretended"
        )
    if name in _PRODUCTS and on_gpu and not on_gpu[0].dtype.is_floating_point:
        raise Refused(f'"{name}_cuda" not implemented for {on_gpu[0].dtype}')
    if not on_gpu or not on_cpu or name in _MOVING:
        return
    if name in _INDEXING:
        _check_indexing(name, given, args)
        return
    written = [args[i] for i in operation.written if i < len(args)]
    if name == "where":  # which moves both numbers, and no condition
        fits = isinstance(args[0], Pretended)
    else:
        fits = operation.per_element and len(on_cpu) == 1
    if not fits or any(x.dim() > 0 for x in on_cpu) or any(x is on_cpu[0] for x in written):
        raise Refused(_mixed(name, given))


def check_generator(generator: torch.Generator, is_on_gpu: bool) -> None:
    """Raise Refused unless ``generator`` is of the device that the numbers are on."""
    expected, found = "cuda" if is_on_gpu else "cpu", generator.device.type
    if found != expected:
        raise Refused(f"Expected a '{expected}' device type for generator but found '{found}'")


def _check_indexing(name: str, given: Sequence[Tensor], args: tuple[Any, ...]) -> None:
    tensor, _, *values = args
    if not isinstance(tensor, Pretended):
        raise Refused(
            "indices should be either on cpu or on the same device as the indexed tensor (cpu); "
            + _mixed(name, given)
        )
    if values and isinstance(values[0], Tensor) and not isinstance(values[0], Pretended):
        if values[0].dim() > 0:
            raise Refused(_mixed(name, given))


def _mixed(name: str, given: Sequence[Tensor]) -> str:
    found = ", ".join(
        f"{'cuda:0' if isinstance(x, Pretended) else 'cpu'} {tuple(x.shape)}" for x in given
    )
    return (
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
        f"cpu! ({name}: {found})"
    )


def waits(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """What the host waits for, if it has to know the result or its size.

    Args:
        operation, args, kwargs: as for :func:`check`; copies are not looked at.
    """
    name = operation.name
    if name in _WAITS:
        return _WAITS[name]
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        return "repeat_interleave without output_size"
    # CUDA's masked_fill asks for the number.
    if name in ("masked_fill", "masked_fill_") and isinstance(args[2], Pretended):
        return "masked_fill with a tensor"
    if name in _INDEXING:
        indices = [x for x in args[1] if x is not None]
        masks = [x for x in indices if x.dtype in (torch.bool, torch.uint8)]
        fills = len(args) > 2 and not isinstance(args[2], Pretended) and len(indices) == 1
        if any(isinstance(x, Pretended) for x in masks) and not fills:  # else it is masked_fill
            return "mask as an index"
    return None


def uploads(operation: Operation, args: tuple[Any, ...]) -> int:
    """How many tensors of the CPU an operation moves to the GPU by itself, waiting for it."""
    if operation.name in _INDEXING and isinstance(args[0], Pretended):
        return sum(isinstance(x, Tensor) and not isinstance(x, Pretended) for x in args[1])
    return 0
