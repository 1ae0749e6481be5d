"""What divides a box loss by the weights of its positives is averaged over processes first."""

from __future__ import annotations

import pytest

from dense_kd.detectors import atss, fcos, gfl
from helpers.builders import batch, tiny_atss, tiny_fcos, tiny_gfl

CASES = {
    "atss": (atss, tiny_atss, "loss_box_reg"),
    "fcos": (fcos, lambda: tiny_fcos(box_loss_weighting="centerness"), "loss_fcos_loc"),
    "gfl": (gfl, tiny_gfl, "loss_box_reg"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_box_loss_is_divided_by_the_mean_over_processes(name: str, monkeypatch):
    module, build, key = CASES[name]
    model = build().eval()  # its moving averages do not move
    inputs = batch()
    dense = model.run(model.preprocess_image(inputs))
    targets = model.targets(dense, model.ground_truth(inputs))
    alone = model.losses(dense, targets)[key].item()
    # As if the other process had three times the weights of this one.
    monkeypatch.setattr(module, "mean_over_processes", lambda value: 2 * value)
    assert model.losses(dense, targets)[key].item() == pytest.approx(alone / 2, rel=1e-5)
