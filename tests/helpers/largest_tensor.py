"""How much memory one tensor takes at most."""

from __future__ import annotations

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class LargestTensor(TorchDispatchMode):
    """Watches the tensors that operations give.

    Attributes:
        elements: of the largest one, views of others among them.
        bytes: of the one that takes most; views take none.
    """

    elements = 0
    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
                taken = tensor.numel() * tensor.element_size() if tensor._base is None else 0
                self.bytes = max(self.bytes, taken)
        return result
