"""What a cell of a map has from all cells of a map, as FKD and CanKD compare it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class NonLocal(nn.Module):
    """Non-local block (Wang et al., "Non-local Neural Networks", CVPR 2018), with dot products.

    It adds to a cell i of x the mean over the cells j of y of (theta(x_i) . phi(y_j)) g(y_j), after
    a convolution and a batch norm. The norm starts at zero, so that the block starts as the
    identity. FKD's y is x, CanKD's is the teacher's map. There is no softmax, so phi and g are
    multiplied first, which is equal, and no matrix of all pairs of cells is made.
    """

    def __init__(self, channels: int, pooling: int, reduction: int = 4):
        """
        Args:
            channels: C.
            pooling: phi(y) and g(y) are pooled by this factor, less where the map is smaller.
            reduction: theta, phi and g have 1 / ``reduction`` of the channels.
        """
        super().__init__()
        inner = max(1, channels // reduction)
        self.pooling = pooling
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.output = nn.Conv2d(inner, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, features: Tensor, others: Tensor) -> Tensor:
        """(N, C, H, W), ``features`` and what is added to them.

        Args:
            features: (N, C, H, W), x.
            others: (N, C, H', W'), y.
        """
        window = tuple(min(self.pooling, size) for size in others.shape[-2:])
        query = self.theta(features).flatten(2)  # (N, C', H*W)
        key = F.max_pool2d(self.phi(others), window).flatten(2)  # (N, C', cells)
        value = F.max_pool2d(self.g(others), window).flatten(2)  # (N, C', cells)
        mixed = (value @ key.transpose(1, 2) / key.shape[2]) @ query  # (N, C', H*W)
        added = self.output(mixed.view(len(mixed), -1, *features.shape[-2:]))
        return features + self._normalized(added)

    def _normalized(self, added: Tensor) -> Tensor:
        if added[:, 0].numel() > 1:
            return self.norm(added)
        norm = self.norm  # one cell has no variance: the statistics of before
        return F.batch_norm(
            added, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
