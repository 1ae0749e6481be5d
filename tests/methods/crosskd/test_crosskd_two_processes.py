"""CrossKD in two processes on the CPU, with gloo and ``find_unused_parameters=False``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from dense_kd import CrossKD, Distiller
from dense_kd.detectors import FCOS, DenseDetector, RetinaNet
from helpers.builders import assert_close, batch, tiny_atss, tiny_fcos, tiny_gfl, tiny_retinanet
from helpers.feature_cases import distill
from helpers.two_processes import ranks_of, run_in_two_processes

pytestmark = pytest.mark.slow

SYNCHRONIZED = {"loss_normalizer_momentum": 0.0, "loss_normalizer_sync": True}


def synchronized_fcos(**options: Any) -> FCOS:
    return tiny_fcos(box_loss_weighting="centerness", **SYNCHRONIZED, **options)


def synchronized_retinanet(**options: Any) -> RetinaNet:
    return tiny_retinanet(**SYNCHRONIZED, **options)


def wide(build: Callable[..., DenseDetector]) -> Callable[..., DenseDetector]:
    return functools.partial(build, channels=32)


# (student, teacher, options): without what depends on the batch of a process, and with it.
SPLIT_ALIKE: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "FCOS": (synchronized_fcos, synchronized_fcos, {"normalize": "quality", "loc_loss": "iou"}),
    "ATSS": (tiny_atss, tiny_atss, {"quality_weight": 1.0}),
    "GFL": (tiny_gfl, tiny_gfl, {"loc_loss": "giou"}),
    "predictions": (tiny_gfl, tiny_gfl, {"loc_loss": "giou", "normalize": "predictions"}),
    "other anchors": (tiny_gfl, synchronized_retinanet, {}),
    "adapters": (tiny_atss, wide(tiny_atss), {}),
}
LOCAL: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "aligned": (tiny_fcos, tiny_fcos, {"align": True}),
    "distributions": (tiny_gfl, tiny_gfl, {"align": True}),
    "aligned adapters": (tiny_gfl, wide(tiny_gfl), {"align": True, "cls_weight": 0.0}),
}
MODELS = {**SPLIT_ALIKE, **LOCAL}
# Which images each rank gets; the ranks have unequal numbers of objects.
CASES = {
    "usual": (lambda: [batch("usual")[0]], lambda: [batch("usual", seed=3)[0]]),
    "rank 1 is empty": (lambda: [batch("usual")[0]], lambda: [batch("all empty", seed=3)[0]]),
    "all empty": (lambda: [batch("all empty")[0]], lambda: [batch("all empty", seed=3)[0]]),
}


def distiller(name: str) -> Distiller:
    student, teacher, options = MODELS[name]
    method = CrossKD(**{"depth": 1, "align": False, **options})
    return distill(student(), teacher(seed=1), crosskd=method)


def worker(output: str) -> None:
    torch.set_num_threads(1)
    rank = comm.get_rank()
    for name in MODELS:
        for case in CASES:
            model = create_ddp_model(
                distiller(name),
                device_ids=None,
                find_unused_parameters=False,
                broadcast_buffers=False,
            )
            with EventStorage():
                losses = model(CASES[case][rank]())
            sum(losses.values()).backward()
            gradients = {n: p.grad for n, p in model.module.named_parameters() if p.requires_grad}
            values = {key: loss.detach() for key, loss in losses.items() if key.startswith("kd_")}
            content = {"losses": values, "gradients": gradients}
            torch.save(content, Path(output, f"{name}_{case}_{rank}.pth"))
    comm.synchronize()


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Both processes run every model and case once: starting them takes most of the time."""
    return run_in_two_processes(worker, tmp_path_factory)


@pytest.mark.parametrize("name", SPLIT_ALIKE)
@pytest.mark.parametrize("case", ["usual", "rank 1 is empty"])
def test_losses_and_gradients_equal_those_of_one_process_with_the_whole_batch(outputs, name, case):
    ranks = ranks_of(outputs, name, case)
    model = distiller(name)
    losses = model([*CASES[case][0](), *CASES[case][1]()])
    for key in ranks[0]["losses"]:
        mean = (ranks[0]["losses"][key] + ranks[1]["losses"][key]) / 2
        torch.testing.assert_close(mean, losses[key].detach(), rtol=1e-4, atol=1e-6)
        assert losses[key] > 0
    sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    # A bias before a norm has a gradient of nothing but rounding.
    scale = 0.01 * max(gradient.abs().max().item() for gradient in gradients.values())
    # -log IoU of boxes that hardly overlap multiplies rounding.
    tolerance = 1e-3 if MODELS[name][2].get("loc_loss") == "iou" else 1e-4
    for key, gradient in gradients.items():
        for rank in ranks:
            assert_close(rank["gradients"][key], gradient, tolerance, key, scale)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("case", CASES)
def test_every_rank_trains_without_nan_and_with_equal_gradients(outputs, name, case):
    first, second = ranks_of(outputs, name, case)
    assert all(torch.isfinite(loss) for rank in (first, second) for loss in rank["losses"].values())
    for key, gradient in first["gradients"].items():
        assert torch.isfinite(gradient).all(), key
        torch.testing.assert_close(gradient, second["gradients"][key])
