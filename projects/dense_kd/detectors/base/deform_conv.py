"""Deformable convolution."""

from __future__ import annotations

import torch
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
        with full_precision(x.device):
            out = deform_conv2d(
                x.to(dtype),
                offset.masked_fill(nowhere, 0.0).to(dtype),
                self.weight.to(dtype),
                None if self.bias is None else self.bias.to(dtype),
                padding=self.padding,
            )
        return out.masked_fill(nowhere.any(dim=1, keepdim=True), float("nan")).to(x.dtype)
