"""Under autocast the losses of every method are float32, near full precision, and train."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from dense_kd import Distiller
from dense_kd.detectors import DenseDetector
from helpers.builders import (
    batch,
    nine_anchor_retinanet,
    tiny_atss,
    tiny_autoassign,
    tiny_ddod,
    tiny_distribution_retinanet,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)
from helpers.feature_cases import distill
from helpers.feature_networks import feature_teacher
from helpers.method_cases import ALL, Inside, Pair, make_method, teacher_of

EVERY_DETECTOR = (tiny_retinanet, tiny_fcos, tiny_atss, tiny_ddod, tiny_gfl, tiny_autoassign)
ATSS_BINS = functools.partial(tiny_atss, head={"reg_max": 16})
FCOS_BINS = functools.partial(tiny_fcos, head={"reg_max": 16})
LD_OF_RETINANET = {
    "main_weight": 5.0,
    "vlr_weight": 0.15,
    "cls_temperature": 8.0,
    "vlr_excludes_positives": True,
    "joint_softmax": True,
}
ALIGNMENTS: tuple[dict[str, Any], ...] = ({}, {"align_on": "pre_relu"}, {"align": False})

Build = Callable[..., DenseDetector]


def cases() -> Iterator[Any]:
    """(method, detector, options of the method, channels of the teacher, relative tolerance)"""
    rows: list[tuple[str, Build, dict[str, Any], int, float]] = [
        *[("BCKD", build, {}, 16, 0.02) for build in EVERY_DETECTOR if build is not tiny_ddod],
        # The number of its positives, which depend on what it predicts, may change.
        ("BCKD", tiny_ddod, {"normalize": "none"}, 16, 0.02),
        *[
            ("CrossKD", build, {"depth": 1, "normalize": "predictions", **alignment}, 16, 0.02)
            for build in EVERY_DETECTOR
            for alignment in ALIGNMENTS
        ],
        *[("KD", build, {}, 16, 0.02) for build in (tiny_retinanet, tiny_fcos, tiny_atss)],
        *[("KD", build, {}, 16, 0.02) for build in (tiny_gfl, tiny_distribution_retinanet)],
        ("LD", tiny_gfl, {}, 16, 0.02),
        ("LD", ATSS_BINS, {"vlr_weight": 0.0375}, 16, 0.02),
        ("LD", FCOS_BINS, {"vlr_region": "inside", "vlr_weighting": "score"}, 16, 0.02),
        ("LD", tiny_distribution_retinanet, LD_OF_RETINANET, 16, 0.02),
        *[("PGD", build, {"foreground": "box"}, 16, 0.05) for build in EVERY_DETECTOR],
        # Points at a threshold may fall on its other side.
        *[("TID", build, {}, 16, 0.1) for build in (nine_anchor_retinanet, tiny_fcos)],
        *[("TID", build, {}, 16, 0.1) for build in (tiny_atss, tiny_gfl)],
        ("FromTeacher", tiny_gfl, {"method": Inside("CrossKD", {"depth": 1})}, 16, 0.05),
        ("FromTeacher", tiny_fcos, {"method": Inside("PKD", {})}, 24, 0.03),
        ("DSI", tiny_gfl, {"teacher": feature_teacher()}, 16, 0.05),
        ("FKD", tiny_gfl, {}, 16, 0.05),
        *[(name, tiny_gfl, {}, 16, 0.05) for name in ("DeFeat", "FitNet", "GIBox")],
        *[(name, tiny_gfl, {"warmup_iters": 0}, 16, 0.05) for name in ("FGFI", "FRS")],
        *[(name, tiny_fcos, {}, 16, 0.03) for name in ("CanKD", "FGD", "MGD", "PKD")],
        *[(name, tiny_fcos, {}, 24, 0.03) for name in ("CanKD", "FGD", "MGD", "PKD")],
    ]
    for name, build, options, width, tolerance in rows:
        detector = getattr(build, "func", build).__name__
        words = [name, detector, *(f"{k}={v}" for k, v in options.items()), str(width)]
        yield pytest.param(name, build, options, width, tolerance, id=" ".join(words))


def losses_of(model: Distiller, normalizer: Tensor) -> dict[str, Tensor]:
    """Of the same step again: random numbers and the average of the positives are those before."""
    model.student.loss_normalizer.copy_(normalizer)
    torch.manual_seed(5)
    return {key: loss for key, loss in model(batch()).items() if key.startswith("kd_")}


def test_every_method_is_tried():
    assert {case.values[0] for case in cases()} == set(ALL)


@pytest.mark.parametrize(("name", "build", "options", "width", "tolerance"), list(cases()))
def test_losses_are_float32_close_to_full_precision_and_train(
    name: str, build: Build, options: dict[str, Any], width: int, tolerance: float
):
    """A teacher of another width has its own bfloat16."""
    make_teacher = functools.partial(build, seed=1, channels=width)
    method = make_method(name, Pair(build, options), make_teacher)
    model = distill(build(), make_teacher(), method)
    normalizer = model.student.loss_normalizer.clone()
    full = losses_of(model, normalizer)
    teacher_of(model).precision = "bfloat16" if width != 16 else None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = losses_of(model, normalizer)
    assert mixed.keys() == full.keys() and full
    for term, loss in mixed.items():
        assert loss.dtype == torch.float32, term
        assert loss.item() == pytest.approx(full[term].item(), rel=tolerance), term
    sum(mixed.values()).backward()
    gradients = [p.grad for p in model.student.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    for key, parameter in model.kd.named_parameters():
        assert parameter.grad.isfinite().all(), key
