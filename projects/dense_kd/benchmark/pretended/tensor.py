"""The tensor that says it is on the GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .gpu import GPU

INNER = torch.device("meta")
"""Where torch believes the tensors are: it computes gradients for this device on every machine,
and nothing else that is counted uses it. Code that runs within ``pretended_gpu`` reads
``cuda:0``."""


class Pretended(Tensor):
    """A tensor on the pretended GPU.

    Attributes:
        held: its data, on the CPU.
        gpu: on which it is.
    """

    held: Tensor
    gpu: GPU

    @staticmethod
    def __new__(cls, held: Tensor, gpu: GPU) -> Pretended:
        """A tensor without data, of the shape of ``held``."""
        return Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=INNER,
        )

    def __init__(self, held: Tensor, gpu: GPU):
        self.held = held
        self.gpu = gpu

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch takes it as a class method
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        gpu = next(x.gpu for x in tensors_in(args, kwargs) if isinstance(x, Pretended))
        return gpu.execute(func, args, kwargs)

    def tolist(self) -> Any:
        """Numbers, for which the host waits."""
        self.gpu.stop("tolist")
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """Refused without ``force``, as CUDA refuses it."""
        if not force:
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the "
                "tensor to host memory first."
            )
        return self.detach().cpu().numpy()

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.numpy()

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.dim() == 0 else repr(self), spec)

    def __repr__(  # type: ignore[override]  # torch has no types there
        self, *, tensor_contents: Any = None
    ) -> str:
        self.gpu.stop("repr")
        return repr(self.held).replace("tensor(", "tensor(cuda:0, ", 1)

    def __deepcopy__(self, memo: dict[int, Any]) -> Pretended:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
                "protocol at the moment"
            )
        with torch.no_grad():
            twin = memo[id(self)] = cast(Pretended, self.detach().clone())
        own = {name: value for name, value in self.__dict__.items() if name not in twin.__dict__}
        twin.__dict__.update(own)
        twin.requires_grad_(self.requires_grad)
        if self.grad is not None:
            twin.grad = self.grad.__deepcopy__(memo)
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As a tensor of CUDA is pickled: its data, which remember that they were on the GPU."""
        self.gpu.stop("pickle")
        self.gpu.saved.add(self.held.untyped_storage().data_ptr())
        return self.held.__reduce_ex__(protocol)


def tensors_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Those among the arguments of an operation, and in lists that are arguments."""
    found = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += [x for x in value if isinstance(x, Tensor)]
    return found


def mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """``value`` with ``change`` applied to the tensors it is, or its lists hold."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return type(value)([mapped(x, change) for x in value])
    return value


def names_gpu(device: Any) -> bool:
    """Whether ``device`` is the one GPU there is.

    Raises:
        RuntimeError: it is another one, as CUDA says it.
    """
    if isinstance(device, str):
        if not device.startswith("cuda"):
            return False
        device = torch.device(device)
    if not isinstance(device, torch.device) or device.type not in ("cuda", INNER.type):
        return False
    if device.index not in (None, 0):
        raise RuntimeError(f"CUDA error: invalid device ordinal {device}")
    return True
