"""What a pickle of weights may name: {module and name: what it stands for}.

Nothing is looked up by the name that a file gives but in these tables.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .pickled_values import check_key


class ForbiddenError(pickle.UnpicklingError):
    """A pickle names something that is neither a container nor weights.

    Attributes:
        name: as in "os.system".
    """

    def __init__(self, name: str):
        super().__init__(f"{name} is not allowed")
        self.name = name


class Budget:
    """How many bytes may be made of a file, so that a few cannot become very many.

    Tensors count what they show of their storage, which several may share.
    """

    FACTOR = 16
    MARGIN = 1 << 26

    def __init__(self, size: int):
        """
        Args:
            size: of the file, in bytes.
        """
        self.left = self.FACTOR * size + self.MARGIN

    def spend(self, count: int) -> None:
        """Take ``count`` bytes of what is left; an UnpicklingError if that is not enough."""
        self.left -= count
        if self.left < 0:
            raise pickle.UnpicklingError(
                f"its values would need more than {self.FACTOR} times the bytes of the file"
            )

    def spend_on_items(self, count: int) -> None:
        """Containers, or items of one that are copied."""
        self.spend(256 * count)


@dataclass(frozen=True)
class Call:
    """What a function of a pickle does: ``make`` of a Budget and the arguments."""

    make: Callable[..., Any]

    def __call__(self, budget: Budget, *arguments: Any) -> Any:
        """The value; an UnpicklingError if the arguments are of a wrong type."""
        try:
            return self.make(budget, *arguments)
        except (TypeError, AttributeError) as error:
            raise pickle.UnpicklingError(f"arguments of a wrong type: {error}") from error


@dataclass(frozen=True)
class Ignored:
    """An object of another library that no weights need; it is not built."""

    name: str

    def __call__(self, *_: Any) -> Ignored:
        """Itself, which also stands for what it would make."""
        return self


@dataclass(frozen=True)
class StorageType:
    """A class of storages; ``dtype`` is that of their elements."""

    dtype: torch.dtype


@dataclass(frozen=True)
class Storage:
    """Elements of a file.

    Attributes:
        elements: (numel,).
    """

    elements: Tensor


@dataclass
class DType:
    """numpy's dtype, whose order of bytes is told after it is built."""

    code: str
    order: Any = "="

    def numpy(self) -> np.dtype:
        """The dtype, of numbers or texts; an UnpicklingError for others, such as objects."""
        if not re.fullmatch(r"[?bBhHiIlLqQefdFD]|[biufcSU]\d{1,4}", self.code):
            raise pickle.UnpicklingError(f"an array of {self.code[:20]!r}, expected numbers")
        if self.order not in ("=", "<", ">", "|"):
            raise pickle.UnpicklingError("an array whose order of bytes is unknown")
        return np.dtype(self.code).newbyteorder(self.order)


class _Class:
    """Stands for a class that is only named, as the type of something."""

    def __init__(self, name: str):
        self.name = name


def known_object(module: str, name: str) -> Any:
    """What ``module`` and ``name`` stand for.

    Raises:
        ForbiddenError: they are not in the tables.
    """
    module = _RENAMED.get(module, module)
    if (module, name) in _KNOWN:
        return _KNOWN[module, name]
    raise ForbiddenError(f"{module}.{name}")


def fill_array(array: np.ndarray, state: Any, budget: Budget) -> None:
    """Give ``array`` the shape, dtype and numbers of ``state``, as numpy pickles them."""
    _, shape, dtype, fortran, data = state
    data = _as_bytes(data, budget)
    _check_data(shape, dtype.numpy(), data)
    whole: Any = (1, tuple(shape), dtype.numpy(), bool(fortran), data)
    array.__setstate__(whole)


def _check_data(shape: tuple[int, ...], dtype: np.dtype, data: bytes) -> None:
    _check_sizes(shape)
    if len(shape) > 32 or math.prod(shape) * dtype.itemsize != len(data):
        raise pickle.UnpicklingError(
            f"an array of shape {shape} and type {dtype} in {len(data)} bytes"
        )


def _check_sizes(sizes: tuple[int, ...]) -> None:
    if type(sizes) not in (tuple, torch.Size) or len(sizes) > 64:
        raise pickle.UnpicklingError(f"a shape that is a {type(sizes).__name__}")
    if not all(type(size) is int and 0 <= size < 2**48 for size in sizes):
        raise pickle.UnpicklingError("a shape that is no tuple of sizes")


def _as_bytes(data: Any, budget: Budget) -> bytes:
    budget.spend(len(data))
    if isinstance(data, str):  # of Python 2
        return data.encode("latin-1")
    if not isinstance(data, (bytes, bytearray)):
        raise pickle.UnpicklingError(f"numbers that are a {type(data).__name__}")
    return bytes(data)


def _encode(budget: Budget, text: str, encoding: str) -> bytes:
    if not (isinstance(text, str) and encoding in ("latin1", "latin-1")):
        raise pickle.UnpicklingError("bytes that are no latin-1")
    return _as_bytes(text, budget)


def _empty_array(budget: Budget, kind: Any, shape: tuple[int, ...], *_: Any) -> np.ndarray:
    _check_sizes(shape)
    if shape != (0,):  # numpy gives an array its shape together with its numbers
        raise pickle.UnpicklingError(f"an array of shape {shape} without numbers")
    return np.empty(0)


def _array_of_buffer(
    budget: Budget, data: Any, dtype: DType, shape: tuple[int, ...], order: str
) -> np.ndarray:
    array = np.empty(0)
    fill_array(array, (1, shape, dtype, order == "F", data), budget)
    return array


def _scalar(budget: Budget, dtype: DType, data: Any) -> Any:
    data = _as_bytes(data, budget)
    _check_data((), dtype.numpy(), data)
    return np.frombuffer(data, dtype.numpy())[0].item()


def _dtype(budget: Budget, code: str, *_: Any) -> DType:
    if not isinstance(code, str):
        raise pickle.UnpicklingError(f"a type of numbers that is a {type(code).__name__}")
    return DType(code)


def _pairs(kind: type) -> Callable[..., Any]:
    def make(budget: Budget, items: Any = ()) -> Any:
        _check_items(items, budget)
        pairs = items.items() if isinstance(items, dict) else items
        return kind({check_key(key): value for key, value in pairs})

    return make


def _members(kind: type) -> Callable[..., Any]:
    def make(budget: Budget, items: Any = ()) -> Any:
        _check_items(items, budget)
        return kind(map(check_key, items))

    return make


def _check_items(items: Any, budget: Budget) -> None:
    if not isinstance(items, (dict, list, tuple, set, frozenset)):
        raise pickle.UnpicklingError(f"items that are a {type(items).__name__}")
    budget.spend_on_items(len(items))


def _bytes(budget: Budget, data: Any = b"", encoding: str = "latin-1") -> bytes:
    return _encode(budget, data, encoding) if isinstance(data, str) else _as_bytes(data, budget)


def _default_dict(budget: Budget, factory: Any = None, items: Any = ()) -> dict[Any, Any]:
    return _pairs(dict)(budget, items)


def _size(budget: Budget, sizes: tuple[int, ...] = ()) -> torch.Size:
    _check_sizes(sizes)
    return torch.Size(sizes)


def _device(budget: Budget, kind: str, index: int | None = None) -> torch.device:
    if not re.fullmatch(r"[a-z]{1,16}(:\d{1,4})?", kind):
        raise pickle.UnpicklingError(f"the device {kind[:40]!r}")
    return torch.device(kind) if index is None else torch.device(kind, index)


def _tensor(
    budget: Budget,
    storage: Storage,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    """A view of ``storage`` that does not leave it."""
    _check_sizes(size)
    _check_sizes(stride)
    _check_sizes((offset,))
    if metadata:  # such as a conjugate view
        raise pickle.UnpicklingError("a tensor with more than its numbers")
    if len(size) != len(stride):
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} and strides {tuple(stride)}")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    count = math.prod(size)
    if count and last >= storage.elements.numel():
        raise pickle.UnpicklingError(
            f"a tensor of shape {tuple(size)} in {storage.elements.numel()} elements"
        )
    budget.spend(count * storage.elements.element_size())
    if not count:
        return storage.elements.new_empty(size)
    return storage.elements.as_strided(size, stride, offset)


def _tensor_of_dtype(
    budget: Budget,
    storage: Storage,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
    hooks: Any,
    dtype: torch.dtype,
    metadata: Any = None,
) -> Tensor:
    elements = storage.elements.view(torch.uint8)
    if elements.numel() % torch.empty(0, dtype=dtype).element_size():
        raise pickle.UnpicklingError(f"{elements.numel()} bytes of {dtype}")
    return _tensor(budget, Storage(elements.view(dtype)), offset, size, stride, metadata=metadata)


def _parameter(budget: Budget, data: Tensor, *_: Any) -> Tensor:
    return data


def _tensor_with_attributes(
    budget: Budget, function: Call, kind: Any, arguments: tuple[Any, ...], state: Any
) -> Tensor:
    if not isinstance(kind, _Class):
        raise pickle.UnpicklingError("a tensor of another class")
    return function(budget, *arguments)


def _attribute(budget: Budget, target: Any, name: str) -> Ignored:
    if not isinstance(target, Ignored):
        raise ForbiddenError("builtins.getattr")
    return target


_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Names of Python 2, which protocol 2 writes."""

_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}

_STORAGES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16,
    "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
    "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
    "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128, "Untyped": torch.uint8,
}  # fmt: skip

_CALLS: dict[str, dict[str, Callable[..., Any]]] = {
    "builtins": {
        "set": _members(set), "frozenset": _members(frozenset), "bytes": _bytes,
        "bytearray": _bytes, "getattr": _attribute,
    },
    "_codecs": {"encode": _encode},
    "collections": {
        "OrderedDict": _pairs(OrderedDict), "Counter": _pairs(Counter),
        "defaultdict": _default_dict,
    },
    "torch": {"Size": _size, "device": _device},
    "torch._utils": {
        "_rebuild_tensor": _tensor, "_rebuild_tensor_v2": _tensor,
        "_rebuild_tensor_v3": _tensor_of_dtype, "_rebuild_parameter": _parameter,
        "_rebuild_parameter_with_state": _parameter,
    },
    "torch._tensor": {"_rebuild_from_type_v2": _tensor_with_attributes},
    **{
        f"numpy.{core}": {
            "_reconstruct": _empty_array, "scalar": _scalar, "_frombuffer": _array_of_buffer,
        }
        for core in (
            "core.multiarray", "_core.multiarray", "core.numeric", "_core.numeric",
        )
    },
    "numpy": {"dtype": _dtype},
}  # fmt: skip

_CLASSES = {
    "builtins": ("dict", "list", "int", "float", "str", "tuple", "object"),
    "numpy": ("ndarray",),
    "torch": ("Tensor",),
    "torch.nn.parameter": ("Parameter",),
}

_IGNORED = {
    "argparse": ("Namespace",),  # the arguments of DETR's scripts
    "mmengine.logging.history_buffer": ("HistoryBuffer",),  # the logger of a training run
}

_KNOWN: dict[tuple[str, str], Any] = {
    **{(m, name): Call(make) for m, calls in _CALLS.items() for name, make in calls.items()},
    **{(m, name): _Class(name) for m, names in _CLASSES.items() for name in names},
    **{(m, name): Ignored(f"{m}.{name}") for m, names in _IGNORED.items() for name in names},
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
    **{
        (module, f"{name}Storage"): StorageType(dtype)
        for module in ("torch", "torch.cuda", "torch.storage")
        for name, dtype in _STORAGES.items()
    },
}
