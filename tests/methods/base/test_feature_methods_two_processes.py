"""Methods that compare features in two processes on the CPU, with gloo and
``find_unused_parameters=False``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from dense_kd import (
    DSI,
    FGD,
    FGFI,
    FKD,
    FRS,
    MGD,
    PGD,
    PKD,
    TID,
    CanKD,
    DeFeat,
    Distiller,
    FitNet,
    FromTeacher,
    GIBox,
    KDMethod,
    Teacher,
)
from helpers.builders import assert_close, batch, tiny_gfl
from helpers.feature_cases import distill, move_off_their_start
from helpers.feature_networks import feature_teacher
from helpers.two_processes import ranks_of, run_in_two_processes

pytestmark = pytest.mark.slow


def other_teacher(method: KDMethod, **options: int) -> FromTeacher:
    """A method that learns from a teacher which is not the Distiller's."""
    teacher = Teacher(tiny_gfl(seed=1, channels=24), None)
    return FromTeacher(teacher=teacher, method=method, **options)


# Without what depends on the process, and with it: sums over the batch, and random numbers.
SPLIT_ALIKE = {
    "dsi": lambda: DSI(teacher=feature_teacher()),
    "dsi without a teacher": lambda: DSI(teacher=feature_teacher()),
    "fgd": lambda: FGD(),
    "fgd from another teacher": lambda: other_teacher(FGD()),
    "fitnet": lambda: FitNet(),
    "mgd without masks": lambda: MGD(masked_ratio=0.0),
    "pgd": lambda: PGD(),
    "tid": lambda: TID(),
}
LOCAL = {
    "cankd": lambda: CanKD(),
    "defeat": lambda: DeFeat(),
    "fgfi": lambda: FGFI(warmup_iters=0),
    "fitnet of objects": lambda: FitNet(region="objects"),
    "fitnet of positives": lambda: FitNet(region="positives"),
    "fkd": lambda: FKD(),
    "frs": lambda: FRS(warmup_iters=0),
    "gibox": lambda: GIBox(nms_thresh=0.7),  # leaves unequally many boxes of each image
    "pkd": lambda: PKD(),
    "pkd of towers": lambda: PKD(taps=[("cls", 2), ("bbox", 1)]),
}
RANDOM = {"mgd": lambda: MGD(), "released pgd": lambda: PGD(compat="released")}
RESTING = {"a teacher that comes later": lambda: other_teacher(FGD(), first_iter=1)}
METHODS = {**SPLIT_ALIKE, **LOCAL, **RANDOM, **RESTING}
WITHOUT_TEACHER = {"dsi without a teacher", "fgd from another teacher"}
# Which images each rank gets; the ranks have unequal numbers of objects.
CASES = {
    "usual": (lambda: [batch("usual")[0]], lambda: [batch("usual", seed=3)[0]]),
    "rank 1 is empty": (lambda: [batch("usual")[0]], lambda: [batch("all empty", seed=3)[0]]),
    "all empty": (lambda: [batch("all empty")[0]], lambda: [batch("all empty", seed=3)[0]]),
}


def distiller(name: str) -> Distiller:
    teacher = None if name in WITHOUT_TEACHER else tiny_gfl(seed=1, channels=24)
    model = distill(tiny_gfl(), teacher, METHODS[name]())
    move_off_their_start(model.kd)
    return model


def step(model, inputs: list[dict]) -> dict[str, dict[str, torch.Tensor]]:
    """The losses of the method, and the gradients that they give."""
    with EventStorage():
        losses = model(inputs)
    distilled = {key: loss for key, loss in losses.items() if key.startswith("kd_")}
    # Those of the detector count for nothing, yet DDP waits for the gradients of its head.
    others = sum(loss for key, loss in losses.items() if key not in distilled)
    (sum(distilled.values()) + 0 * others).backward()
    module = model if isinstance(model, Distiller) else model.module
    gradients = {n: p.grad for n, p in module.named_parameters() if p.requires_grad}
    return {"losses": {k: v.detach() for k, v in distilled.items()}, "gradients": gradients}


def worker(output: str) -> None:
    torch.set_num_threads(1)
    rank = comm.get_rank()
    for name in METHODS:
        for case in CASES:
            model = create_ddp_model(
                distiller(name),
                device_ids=None,
                find_unused_parameters=False,
                broadcast_buffers=False,
            )
            torch.save(step(model, CASES[case][rank]()), Path(output, f"{name}_{case}_{rank}.pth"))
    comm.synchronize()


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Both processes run every method and case once: starting them takes most of the time."""
    return run_in_two_processes(worker, tmp_path_factory)


@pytest.mark.parametrize("name", SPLIT_ALIKE)
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_equal_those_of_one_process_with_the_whole_batch(outputs, name, case):
    ranks = ranks_of(outputs, name, case)
    whole = step(distiller(name), [*CASES[case][0](), *CASES[case][1]()])
    for key, loss in whole["losses"].items():
        mean = (ranks[0]["losses"][key] + ranks[1]["losses"][key]) / 2
        torch.testing.assert_close(mean, loss, rtol=1e-4, atol=1e-6)
        assert loss > 0 or case == "all empty"
    # A bias before a norm or in a softmax has a gradient of nothing but rounding.
    scale = 0.01 * max(gradient.abs().max().item() for gradient in whole["gradients"].values())
    for key, gradient in whole["gradients"].items():
        for rank in ranks:
            assert_close(rank["gradients"][key], gradient, 1e-4, key, scale)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_every_rank_trains_without_nan_and_with_equal_gradients(outputs, name, case):
    first, second = ranks_of(outputs, name, case)
    assert all(torch.isfinite(loss) for rank in (first, second) for loss in rank["losses"].values())
    assert any(key.startswith("kd.feature.") for key in first["gradients"])
    for key, gradient in first["gradients"].items():
        assert torch.isfinite(gradient).all(), key
        torch.testing.assert_close(gradient, second["gradients"][key])


@pytest.mark.parametrize("name", LOCAL)
def test_sums_and_statistics_of_some_methods_are_of_each_process(outputs, name):
    ranks = [rank["losses"] for rank in ranks_of(outputs, name, "usual")]
    images = [images() for images in CASES["usual"]]
    for rank, inputs in zip(ranks, images):
        alone = step(distiller(name), inputs)["losses"]
        torch.testing.assert_close(rank, alone, rtol=1e-5, atol=0)
    whole = step(distiller(name), [*images[0], *images[1]])["losses"]
    assert any((whole[k] - (ranks[0][k] + ranks[1][k]) / 2).abs() > 1e-3 * whole[k] for k in whole)
