"""Swin transformers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import (
    ShiftedWindowAttention,
    SwinTransformerBlock,
    shifted_window_attention,
)

from .sequential import STRIDES, SequentialBackbone

PATCH_SIZE = 4


class TraceableWindowAttention(ShiftedWindowAttention):
    """torchvision's attention in shifted windows, which a trace does not bind to a size.

    Windows are shifted on an axis with more than one of them. A trace would keep which axes these
    are in its example; a script finds out for every image.
    """

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: (N, H, W, C).

        Returns:
            (N, H, W, C)
        """
        if not torch.jit.is_tracing():
            return super().forward(x)
        return scripted_window_attention(
            x,
            self.qkv.weight,
            self.proj.weight,
            self.get_relative_position_bias(),
            self.window_size,
            self.num_heads,
            self.shift_size,
            self.attention_dropout,
            self.dropout,
            self.qkv.bias,
            self.proj.bias,
            None,
            self.training,
        )


scripted_window_attention = torch.jit.script_if_tracing(shifted_window_attention)


class SwinTransformer(SequentialBackbone):
    """The layers before the classifier of "Swin Transformer: Hierarchical Vision Transformer using
    Shifted Windows" (Liu et al., ICCV 2021), by torchvision and with its names: ``features.*``.

    The defaults are Swin-T, whose outputs res2 to res5 have 96, 192, 384 and 768 channels.

    Every output has a LayerNorm of its own, ``norm0`` (res2) to ``norm3`` (res5), as in Swin's
    detectors. Weights of ImageNet classification lack them: they start as the identity, and are
    trained even where the stage before them is frozen.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        drop_path_rate: float = 0.2,
        freeze_at: int = 0,
        out_features: Iterable[str] = tuple(STRIDES),
    ):
        """
        Args:
            embed_dim: channels of res2; every stage after it doubles them.
            depths: blocks of the four stages.
            num_heads: of attention, in the blocks of the four stages.
            window_size: side of the windows of attention, in positions of a map.
            drop_path_rate: probability that training skips a branch of the last block (stochastic
                depth); it grows linearly from 0 in the first one. Frozen blocks skip nothing.
            freeze_at: how many stages are fixed, see :class:`SequentialBackbone`. The stem is the
                embedding of patches.
            out_features: names of the outputs.

        Raises:
            ValueError: ``depths`` or ``num_heads`` are not four.
        """
        if len(depths) != 4 or len(num_heads) != 4:
            raise ValueError(
                f"depths={list(depths)}, num_heads={list(num_heads)}: expected one number for each "
                "of the four stages"
            )
        model = torchvision.models.SwinTransformer(
            patch_size=[PATCH_SIZE, PATCH_SIZE],
            embed_dim=embed_dim,
            depths=list(depths),
            num_heads=list(num_heads),
            window_size=[window_size, window_size],
            stochastic_depth_prob=drop_path_rate,
            num_classes=1,  # the classifier is not used
            block=partial(SwinTransformerBlock, attn_layer=TraceableWindowAttention),
        )
        channels = [embed_dim * 2**stage for stage in range(4)]
        super().__init__(
            model.features,
            stem_end=1,
            stage_ends=[2, 4, 6, 8],  # from res3 on, a stage begins with the merging of patches
            channels=channels,
            out_features=out_features,
            freeze_at=freeze_at,
        )
        for stage, (name, width) in enumerate(zip(STRIDES, channels)):
            if name in self._out_features:
                self.add_module(f"norm{stage}", nn.LayerNorm(width))
        self.train()

    def train(self, mode: bool = True) -> SwinTransformer:
        """Frozen layers stay in eval mode, in which blocks do not skip branches."""
        super().train(mode)
        for layer in self._frozen_layers():
            layer.eval()
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See :class:`SequentialBackbone`; incomplete patches are filled with zeros."""
        height, width = images.shape[-2:]
        padding = (0, -width % PATCH_SIZE, 0, -height % PATCH_SIZE)
        return super().forward(F.pad(images, padding))

    def _output(self, name: str, x: Tensor) -> Tensor:
        norm = getattr(self, f"norm{list(STRIDES).index(name)}")
        return norm(x).permute(0, 3, 1, 2).contiguous()  # (N, Hl, Wl, C) -> (N, C, Hl, Wl)
