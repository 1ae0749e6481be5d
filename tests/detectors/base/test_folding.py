"""Norms that are folded into convolutions leave what a detector computes."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, get_norm
from torch import nn

from dense_kd.detectors.backbones.batch_norm import FrozenStatisticsBatchNorm
from dense_kd.detectors.base.folding import fold_norms
from helpers.builders import batch, tiny_fcos


def with_statistics(model: nn.Module) -> nn.Module:
    """As after a training: no norm does nothing."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            for name, low in (("running_mean", -0.5), ("running_var", 0.5), ("weight", 0.5)):
                tensor = getattr(module, name)
                if tensor is not None:  # as in one that shares its factors with others
                    tensor.data = torch.rand(tensor.shape, generator=generator) + low
    return model.eval()


NORMS = {
    "FrozenBN": FrozenBatchNorm2d,
    "BN": nn.BatchNorm2d,
    "BN with trained weights": FrozenStatisticsBatchNorm,
    "SyncBN of detectron2": lambda channels: get_norm("naiveSyncBN", channels),
}
MAKE = {
    "of detectron2's convolution": lambda norm: Conv2d(3, 6, 3, bias=False, norm=norm(6)),
    "behind a convolution": lambda norm: nn.Sequential(nn.Conv2d(3, 6, 3), norm(6), nn.ReLU()),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("place", MAKE)
def test_the_convolution_alone_computes_what_both_did(norm: str, place: str):
    model = with_statistics(MAKE[place](NORMS[norm]))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = model(x)
    assert fold_norms(model) == ["" if isinstance(model, Conv2d) else "0"]
    assert not any(isinstance(module, NORMS["BN"]) for module in model.modules())
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)


def norms_of(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if getattr(m, "running_mean", None) is not None]


def test_a_detector_gives_the_same_predictions_with_every_norm_folded():
    model = with_statistics(tiny_fcos(norm="BN"))
    of_backbone, of_head = norms_of(model.backbone), norms_of(model.head)
    images = model.preprocess_image(batch())
    with torch.no_grad():
        expected = model.run(images)
        folded = fold_norms(model)
        found = model.run(images)
    # With detectron2 main, the head has a norm for each level behind one convolution.
    left = norms_of(model.head)
    assert norms_of(model.backbone) == [] and left in ([], of_head)
    assert all(isinstance(model.get_submodule(name), nn.Conv2d) for name in folded)
    assert len(set(folded)) == len(of_backbone) + len(of_head) - len(left) > 4
    for name in ("features", "logits", "deltas", "quality"):
        for ours, theirs in zip(getattr(found, name), getattr(expected, name)):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


class WithActivation(nn.BatchNorm2d):
    """As timm's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


def sequences_that_share_a_convolution() -> nn.Module:
    conv = nn.Conv2d(3, 3, 1)
    return nn.Sequential(
        nn.Sequential(conv, nn.BatchNorm2d(3)), nn.Sequential(conv, nn.BatchNorm2d(3))
    )


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)),
        nn.Sequential(nn.Conv2d(3, 4, 1), WithActivation(4)),
        nn.Sequential(Conv2d(3, 4, 1, activation=torch.tanh), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
        sequences_that_share_a_convolution(),
    ],
    ids=["group norm", "activation in it", "activation before", "batch's own", "shared"],
)
def test_other_norms_stay(model: nn.Module):
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = model.eval()(x)
    assert fold_norms(model) == []
    assert torch.equal(model(x), expected)


def test_a_model_in_training_is_refused():
    with pytest.raises(ValueError, match=r"in training mode.*expected model\.eval\(\)"):
        fold_norms(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
