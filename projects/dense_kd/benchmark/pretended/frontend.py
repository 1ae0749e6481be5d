"""What torch's functions are asked for, before torch looks at devices by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .autocast import Autocast
from .rules import check_generator
from .tensor import INNER, Pretended, names_gpu

if TYPE_CHECKING:
    from .gpu import GPU

CUDA = torch.device("cuda", 0)


class Frontend(TorchFunctionMode):
    """Lets ``cuda`` be the pretended GPU in all functions of torch, and tensors of it say so."""

    def __init__(self, gpu: GPU):
        super().__init__()
        self.gpu = gpu
        self.autocast = Autocast()
        self._own: dict[Any, Callable[..., Any]] = {
            _getter("device"): self._device,
            _getter("is_cuda"): lambda x: isinstance(x, Pretended),
            _getter("is_cpu"): lambda x: not isinstance(x, Pretended),
            _getter("is_meta"): lambda x: False,
            Tensor.get_device: lambda x: 0 if isinstance(x, Pretended) else -1,
            Tensor.cuda: lambda x, device=CUDA, non_blocking=False, **_: x.to(
                INNER, non_blocking=non_blocking
            ),
            Tensor.backward: self._backward,
            Tensor.pin_memory: self._pin,
            Tensor.is_pinned: lambda x, device=None: getattr(x, "is_in_pinned_memory", False),
            Tensor.__getitem__: lambda x, index: x[self._index(x, index)],
            Tensor.__setitem__: self._assign,
            torch.device: torch.device,
            torch.tensor: self._tensor,
            torch.as_tensor: self._as_tensor,
            torch.asarray: self._as_tensor,
            Tensor.new_tensor: self._new_tensor,
            F.one_hot: self._one_hot,
        }

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        own = self._own.get(func)
        if own is not None:
            return own(*args, **kwargs)
        args = tuple(map(_translated, args))
        if kwargs:
            pin = kwargs.pop("pin_memory", False)
            kwargs = {name: _translated(value) for name, value in kwargs.items()}
            if kwargs.get("generator") is not None:
                is_on_gpu = any(isinstance(x, Pretended) for x in args)
                is_on_gpu = is_on_gpu or names_gpu(kwargs.get("device"))
                check_generator(kwargs["generator"], is_on_gpu)
            if pin:
                return self._pin(func(*args, **kwargs))
        args, kwargs = self.autocast.cast(func, args, kwargs)
        return func(*args, **kwargs)

    def _device(self, tensor: Tensor) -> torch.device:
        return CUDA if isinstance(tensor, Pretended) else tensor.device

    def _backward(self, tensor: Tensor, gradient: Any = None, *args: Any, **kwargs: Any) -> None:
        with self:  # also for the hooks of gradients
            torch.autograd.backward(tensor, gradient, *args, **kwargs)

    def _pin(self, tensor: Tensor, device: Any = None) -> Tensor:
        if isinstance(tensor, Pretended):
            raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be")
        pinned: Any = tensor.clone()
        pinned.is_in_pinned_memory = True
        return pinned

    def _index(self, tensor: Tensor, index: Any) -> Any:
        """``index`` whose lists and arrays are tensors of the device, as torch makes them."""
        if not isinstance(tensor, Pretended):
            return index
        if isinstance(index, tuple):
            return tuple(self._index(tensor, item) for item in index)
        return self._tensor(index, device=INNER) if isinstance(index, (list, np.ndarray)) else index

    def _assign(self, tensor: Tensor, index: Any, value: Any) -> None:
        if isinstance(tensor, Pretended) and isinstance(value, (bool, int, float)):
            value = torch.tensor(value, dtype=tensor.dtype)  # CUDA keeps numbers on the CPU
        tensor[self._index(tensor, index)] = value

    def _tensor(
        self, data: Any, *, device: Any = None, pin_memory: bool = False, **options: Any
    ) -> Tensor:
        if isinstance(data, Pretended):
            return self._as_tensor(data.detach().clone(), device=device, **options)
        data = _with_numbers(data)
        requires_grad = options.pop("requires_grad", False)
        if names_gpu(device):
            return torch.tensor(data, **options).to(INNER).requires_grad_(requires_grad)
        found = torch.tensor(data, device=device, **options).requires_grad_(requires_grad)
        return self._pin(found) if pin_memory else found

    def _as_tensor(
        self, data: Any, dtype: Any = None, device: Any = None, **options: Any
    ) -> Tensor:
        if isinstance(data, Pretended):
            return data.to(device=_translated(device) or INNER, dtype=dtype or data.dtype)
        found = torch.as_tensor(data, dtype=dtype, **options)
        return found.to(_translated(device)) if device is not None else found

    def _new_tensor(self, tensor: Tensor, data: Any, **options: Any) -> Tensor:
        options.setdefault("dtype", tensor.dtype)
        options.setdefault("device", tensor.device)
        return self._tensor(data, **options)

    def _one_hot(self, tensor: Tensor, num_classes: int = -1) -> Tensor:
        if not isinstance(tensor, Pretended):
            return F.one_hot(tensor, num_classes)
        if num_classes < 0:
            num_classes = int(tensor.max()) + 1
        ones = tensor.new_zeros(*tensor.shape, num_classes)  # some versions look at the class ids
        return ones.scatter_(-1, tensor[..., None], 1)


def _getter(name: str) -> Any:
    """What torch's functions are asked for where an attribute of a tensor is read."""
    return vars(Tensor.__base__)[name].__get__  # its name depends on the version


def _with_numbers(data: Any) -> Any:
    """Nested lists whose tensors of one element are numbers."""
    if isinstance(data, (list, tuple)):
        return type(data)([_with_numbers(x) for x in data])
    return data.item() if isinstance(data, Pretended) else data


def _translated(value: Any) -> Any:
    """``value``, or if it names the GPU, where torch believes that to be."""
    is_device = isinstance(value, (torch.device, str))
    return INNER if is_device and names_gpu(value) else value
