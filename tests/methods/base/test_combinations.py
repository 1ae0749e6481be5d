"""Any methods combine in one run."""

from __future__ import annotations

import pytest
import torch

from dense_kd import CrossKD, Distiller, Teacher
from dense_kd.yacs_config import METHODS
from helpers.builders import batch, tiny_gfl
from helpers.feature_cases import distill
from helpers.feature_networks import feature_teacher

EVERY = {name.lower(): method for name, method in METHODS.items()}


def distiller(names: list[str]) -> Distiller:
    """A GFL, and a wider one that teaches it; of MGD without its random masks."""
    options = {
        "crosskd": {"depth": 1},
        "dsi": {"teacher": feature_teacher()},
        "fromteacher": {
            "teacher": Teacher(tiny_gfl(seed=2), None),
            "method": CrossKD(depth=1),
        },
        "fgfi": {"warmup_iters": 0},
        "mgd": {"masked_ratio": 0.0},
    }
    chosen = {name: EVERY[name](**options.get(name, {})) for name in names}
    return distill(tiny_gfl(), tiny_gfl(seed=1, channels=24), **chosen)


def losses(model: Distiller) -> dict[str, torch.Tensor]:
    return {key: loss for key, loss in model(batch()).items() if key.startswith("kd_")}


@pytest.mark.slow
def test_all_methods_together_give_the_losses_that_each_gives_alone():
    together = distiller(list(EVERY))
    found = losses(together)
    for name in EVERY:
        alone = distiller([name])
        state = {k: v for k, v in together.state_dict().items() if k in alone.state_dict()}
        alone.load_state_dict(state, strict=True)
        for key, loss in losses(alone).items():
            torch.testing.assert_close(found[key], loss, rtol=1e-5, atol=1e-7, msg=key)
    assert {key.split("_")[1] for key in found} == set(EVERY)


def test_all_methods_together_train_the_student_and_their_parameters_but_not_the_teacher():
    model = distiller(list(EVERY))
    sum(model(batch()).values()).backward()
    assert all(p.grad is None for p in model.teacher.model.parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
