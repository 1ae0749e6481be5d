"""CUDA's autocast: it goes by other lists than that of the CPU.

The lists are those of torch's documentation, "CUDA Ops that can autocast to float16", "to float32",
"that promote to the widest input type" and "Prefer binary_cross_entropy_with_logits".
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...compat import autocast_dtype
from .rules import Refused
from .tensor import Pretended, mapped, tensors_in

_LOW = {
    "__matmul__", "__rmatmul__", "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm",
    "chain_matmul", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "einsum", "linear", "matmul", "mm", "multi_dot", "mv", "prelu",
    "scaled_dot_product_attention",
}  # fmt: skip
_FLOAT32 = {
    "__pow__", "__rdiv__", "__rpow__", "__rtruediv__", "acos", "asin",
    "binary_cross_entropy_with_logits", "cdist", "cosh", "cosine_embedding_loss",
    "cosine_similarity", "cross_entropy", "cumprod", "cumsum", "deform_conv2d", "dist", "erfinv",
    "exp", "expm1", "group_norm", "hinge_embedding_loss", "kl_div", "l1_loss", "layer_norm", "log",
    "log10", "log1p", "log2", "log_softmax", "margin_ranking_loss", "mse_loss", "nll_loss", "nms",
    "norm", "normalize", "pdist", "poisson_nll_loss", "pow", "prod", "reciprocal", "roi_align",
    "rsqrt", "sinh", "smooth_l1_loss", "soft_margin_loss", "softmax", "softmin", "softplus",
    "square", "sum", "tan", "triplet_margin_loss",
}  # fmt: skip
_WIDEST = {
    "addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "grid_sample", "index_put",
    "scatter_add", "tensordot",
}  # fmt: skip
_BANNED = {"binary_cross_entropy"}
_KNOWN = _LOW | _FLOAT32 | _WIDEST | _BANNED


class Autocast:
    """Casts arguments, and the weights once between two calls of :meth:`forget`."""

    def __init__(self) -> None:
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}

    def forget(self) -> None:
        """What ``torch.clear_autocast_cache`` does; the outermost region ends with it."""
        self._weights.clear()

    def cast(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of ``func`` as autocast gives them to it on the GPU.

        Raises:
            Refused: the operation is not safe under autocast.
        """
        if not is_on():
            return args, kwargs
        name = getattr(func, "__name__", "")
        if name not in _KNOWN:
            return args, kwargs
        tensors = [x for x in tensors_in(args, kwargs) if _is_eligible(x)]
        if not tensors:
            return args, kwargs
        if name in _BANNED:
            raise Refused(
                "torch.nn.functional.binary_cross_entropy and torch.nn.BCELoss are unsafe to "
                "autocast."
            )
        if name in _LOW:
            dtype = autocast_dtype()
        elif name in _FLOAT32:
            dtype = torch.float32
        else:
            dtype = max((x.dtype for x in tensors), key=lambda x: x.itemsize)
        cast = functools.partial(self._as, dtype)
        return mapped(args, cast), {name: mapped(value, cast) for name, value in kwargs.items()}

    def _as(self, dtype: torch.dtype, tensor: Tensor) -> Tensor:
        if tensor.dtype == dtype or not _is_eligible(tensor):
            return tensor
        if not (tensor.is_leaf and tensor.requires_grad and dtype != torch.float32):
            return tensor.to(dtype)
        if id(tensor) not in self._weights:
            self._weights[id(tensor)] = tensor, tensor.to(dtype)
        return self._weights[id(tensor)][1]


def is_on() -> bool:
    """Whether ``torch.autocast("cuda")`` is."""
    return torch.is_autocast_enabled()


def _is_eligible(x: Any) -> bool:
    return isinstance(x, Pretended) and x.is_floating_point() and x.dtype != torch.float64
