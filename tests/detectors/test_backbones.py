"""What detectron2 lacks in backbones."""

from __future__ import annotations

import pytest
import torch
from builders import assert_close
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import FPN, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem
from torch import nn

from dense_kd.detectors import FrozenStatisticsBatchNorm, LastLevelP6P7OptionalReLU


def resnet(norm, freeze_at: int = 0) -> ResNet:
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


@pytest.mark.parametrize("in_feature", ["res3", "p4"])
def test_extra_levels_of_an_fpn_with_and_without_relu(in_feature):
    images = torch.randn(2, 3, 64, 64)
    bottom_up = resnet("BN").eval()
    channels = {"res3": 16, "p4": 4}[in_feature]
    block = LastLevelP6P7OptionalReLU(channels, 4, in_feature)
    assert not block.relu
    # strides 8 and 16 make the extra levels p5 and p6
    fpn = FPN(bottom_up, ["res2", "res3"], 4, top_block=block)
    levels = fpn(images)
    source = {**bottom_up(images), **levels}[in_feature]
    assert list(levels) == ["p3", "p4", "p5", "p6"]
    assert torch.equal(levels["p5"], block.p6(source))
    assert torch.equal(levels["p6"], block.p7(levels["p5"]))

    stock = LastLevelP6P7(channels, 4, in_feature)
    stock.load_state_dict(block.state_dict())  # the same parameter names
    assert not torch.allclose(stock(source)[1], levels["p6"])
    block.relu = True
    for ours, theirs in zip(block(source), stock(source)):
        assert torch.equal(ours, theirs)


def test_statistics_stay_and_factors_are_trained():
    model = resnet(FrozenStatisticsBatchNorm).train()
    norms = [m for m in model.modules() if isinstance(m, FrozenStatisticsBatchNorm)]
    assert len(norms) == 7
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sum(x.square().mean() for x in model(torch.randn(2, 3, 32, 32)).values()).backward()
    optimizer.step()
    after = model.state_dict()
    for norm in norms:
        assert norm.weight.grad.abs().sum() > 0
    for key in before:
        fixed = key.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(before[key], after[key]) == fixed, key


def test_it_computes_what_frozen_bn_does_and_exchanges_weights_with_it():
    frozen = resnet("FrozenBN")
    state = frozen.state_dict()
    for key, value in state.items():
        if "norm" in key:
            value.copy_(torch.rand(value.shape) + 0.5)
    ours = resnet(FrozenStatisticsBatchNorm).train()
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 32, 32)
    for name, feature in frozen(images).items():
        assert_close(ours(images)[name], feature, 1e-5, name)
    frozen.load_state_dict(ours.state_dict())
    ours.load_state_dict(resnet("BN").state_dict())
    ours.load_state_dict(dict(state))  # without versions


def test_freezing_stages_freezes_their_factors():
    model = resnet(FrozenStatisticsBatchNorm, freeze_at=2)
    for part in (model.stem, model.res2):
        assert not any(p.requires_grad for p in part.parameters())
        norms = [m for m in part.modules() if isinstance(m, (FrozenBatchNorm2d, nn.BatchNorm2d))]
        assert norms and all(isinstance(m, FrozenBatchNorm2d) for m in norms)
    assert all(p.requires_grad for p in model.res3.parameters())
