"""Small backbones for the tests of this folder."""

from __future__ import annotations

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import ResNet
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dense_kd.detectors import MobileNetV2


def resnet(norm, freeze_at: int = 0) -> ResNet:
    """Three convolutions with a norm in each of two stages, of strides 8 and 16, and a stem."""
    config = L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=4, norm=norm),
        stages=[
            L(ResNet.make_stage)(
                block_class=BasicBlock,
                num_blocks=1,
                stride_per_block=[2],
                in_channels=channels,
                out_channels=2 * channels,
                norm=norm,
            )
            for channels in (4, 8)
        ],
        out_features=["res2", "res3"],
        freeze_at=freeze_at,
    )
    torch.manual_seed(0)
    return instantiate(config)


def mobilenet(norm="BN", **options) -> MobileNetV2:
    """MobileNetV2 with the fewest channels that torchvision gives: mostly 8."""
    torch.manual_seed(0)
    return MobileNetV2(width_mult=0.1, last_conv=False, norm=norm, **options)


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """{name: batch norm of any kind}."""
    kinds = (FrozenBatchNorm2d, _BatchNorm)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def randomize_norms(model: nn.Module) -> None:
    """Give norms statistics, factors and biases that matter."""
    for norm in model.modules():
        if isinstance(norm, (FrozenBatchNorm2d, _BatchNorm, nn.LayerNorm)):
            for key, value in norm.state_dict().items():
                if value.is_floating_point():
                    positive = key in ("weight", "running_var")
                    value.copy_(torch.rand(value.shape) + 0.5 if positive else value.normal_() / 10)
