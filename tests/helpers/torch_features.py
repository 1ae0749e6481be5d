"""What the installed version of torch can do on the CPU."""

from __future__ import annotations

import torch
from torch import nn

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])


def autocast_has(dtype: torch.dtype) -> bool:
    """Whether it computes in ``dtype``: old versions have bfloat16 alone, some with a warning."""
    try:
        with torch.autocast("cpu", dtype=dtype):
            return torch.ones(1, 1).mm(torch.ones(1, 1)).dtype == dtype
    except RuntimeError:
        return False


def has_fused_adamw() -> bool:
    """Whether its fused AdamW takes parameters that are not on a GPU."""
    try:
        torch.optim.AdamW([nn.Parameter(torch.ones(1))], fused=True)
    except RuntimeError:
        return False
    return True
