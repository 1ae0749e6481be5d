"""Deformable convolution."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from ...compat import full_precision


class DeformConv2d(nn.Conv2d):
    """A convolution that samples its input where a convolution beside it says.

    Dai et al., "Deformable Convolutional Networks", ICCV 2017, equation 2, with one group of
    offsets: those of mmcv's ``DCN``, with the same parameters. The offsets are zero at first, which
    is an ordinary convolution. What is sampled outside of the map is 0, so a map may be
    smaller than the kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        padding: int = 1,
        bias: bool = True,
    ):
        """
        Args:
            in_channels, out_channels, kernel_size, padding, bias: see ``torch.nn.Conv2d``.
        """
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, bias=bias)
        # (y, x) for each element of the kernel, row by row.
        self.conv_offset = nn.Conv2d(
            in_channels, 2 * kernel_size**2, kernel_size, padding=padding, bias=True
        )
        for parameter in self.conv_offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: (N, in_channels, H, W).

        Returns:
            (N, out_channels, H', W') in the dtype of ``x``; torchvision has no half precision on
            the CPU, so the sum is computed in float32 at least. It is NaN where an offset is not
            finite.
        """
        offset = self.conv_offset(x)  # (N, 2 * kernel_size**2, H', W')
        # At NaN torchvision would read, and end the process; at infinity its gradients are NaN.
        nowhere = ~offset.isfinite()
        dtype = torch.promote_types(x.dtype, torch.float32)
        convolve = _by_sampling if torch.onnx.is_in_onnx_export() else deform_conv2d
        with full_precision(x.device):
            out = convolve(
                x.to(dtype),
                offset.masked_fill(nowhere, 0.0).to(dtype),
                self.weight.to(dtype),
                None if self.bias is None else self.bias.to(dtype),
                padding=self.padding,
            )
        return out.masked_fill(nowhere.any(dim=1, keepdim=True), float("nan")).to(x.dtype)


def _by_sampling(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, padding: Any
) -> Tensor:
    """torchvision's function, in operators that ONNX has: each element of the kernel samples a map
    of its own, and a convolution of 1 x 1 sums them up."""
    height, width = x.shape[2:]
    rows, columns = (int(size) for size in weight.shape[2:])
    down, right = (torch.arange(size, dtype=x.dtype, device=x.device) for size in offset.shape[2:])
    maps = []
    for element in range(rows * columns):
        row, column = divmod(element, columns)
        y = offset[:, 2 * element] + (down + (row - padding[0]))[:, None]  # (N, H', W')
        x_ = offset[:, 2 * element + 1] + (right + (column - padding[1]))
        # Of grid_sample -1 and 1 are the outer edges of the first and the last pixel.
        grid = torch.stack(((2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
        maps.append(F.grid_sample(x, grid, padding_mode="zeros", align_corners=False))
    kernel = weight.flatten(2).transpose(1, 2).flatten(1)[..., None, None]  # element by element
    return F.conv2d(torch.cat(maps, dim=1), kernel, bias)
