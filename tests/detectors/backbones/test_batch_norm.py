"""What each batch norm trains, in every place that takes one."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import FPN
from torch import nn

from dense_kd.detectors import FCOSHead, FrozenStatisticsBatchNorm
from helpers.builders import assert_close
from helpers.tiny_backbones import batch_norms, mobilenet, resnet

# norm: whether its statistics move, whether its factor and bias are trained
MODES = {
    "FrozenBN": (False, False),
    FrozenStatisticsBatchNorm: (False, True),
    "BN": (True, True),
    "SyncBN": (True, True),
    "naiveSyncBN": (True, True),
}


def resnet_loss(norm):
    model = resnet(norm)
    return model, lambda images: sum(x.square().mean() for x in model(images).values())


def mobilenet_loss(norm):
    model = mobilenet(norm)
    return model, lambda images: sum(x.square().mean() for x in model(images).values())


def fpn_loss(norm):
    model = FPN(resnet("FrozenBN"), ["res2", "res3"], 8, norm=norm)
    return model, lambda images: sum(x.square().mean() for x in model(images).values())


def head_loss(norm):
    head = FCOSHead(
        input_shape=[ShapeSpec(channels=3)] * 2, num_classes=2, conv_dims=[8, 8], norm=norm
    )

    def loss(images):
        outputs, _ = head.run([images, images[..., ::2, ::2]])
        maps = [*outputs.logits, *outputs.deltas, *outputs.quality]
        return sum(x.square().mean() for x in maps)

    return head, loss


@pytest.mark.parametrize("place", [resnet_loss, mobilenet_loss, fpn_loss, head_loss])
@pytest.mark.parametrize("norm", MODES, ids=str)
def test_a_norm_trains_and_keeps_what_the_table_says(norm, place):
    torch.manual_seed(0)
    model, loss = place(norm)
    model.train()
    frozen = set(batch_norms(getattr(model, "bottom_up", nn.Identity())).values())
    norms = {k: m for k, m in batch_norms(model).items() if m not in frozen}
    assert len(norms) >= 4
    before = {key: value.clone() for key, value in model.state_dict().items()}
    loss(torch.randn(2, 3, 64, 64)).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    moves, trained = MODES[norm]
    after, parameters = model.state_dict(), dict(model.named_parameters())
    for name in norms:
        for kind in ("running_mean", "running_var"):
            key = f"{name}.{kind}"
            assert torch.equal(before[key], after[key]) != moves, key
        for kind in ("weight", "bias"):
            key = f"{name}.{kind}"
            if key not in after:  # in detectron2 main, the norms of a head's levels share them
                key = f"{name.rpartition('.')[0]}.{kind}"
            assert (key in parameters) == trained, key
            if trained:
                assert parameters[key].grad.abs().sum() > 0, key
            else:
                assert torch.equal(before[key], after[key]), key
    model.eval()
    with torch.no_grad():
        assert loss(torch.randn(1, 3, 64, 64)).isfinite()


def test_synchronised_batch_norm_in_a_single_process_on_the_cpu_is_bn():
    images = torch.randn(2, 3, 64, 64)
    expected = mobilenet("BN").train()(images)
    for norm in ("SyncBN", "naiveSyncBN"):
        for name, feature in mobilenet(norm).train()(images).items():
            assert torch.equal(feature, expected[name]), (norm, name)


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
