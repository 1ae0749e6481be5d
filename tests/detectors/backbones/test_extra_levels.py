"""P6 and P7 with and without a ReLU between them."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import FPN
from detectron2.modeling.backbone.fpn import LastLevelP6P7

from dense_kd.detectors import LastLevelP6P7OptionalReLU
from helpers.tiny_backbones import resnet


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
