"""A teacher that gives NaN or infinity stops the run, whatever a method makes of it."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from detectron2.engine import SimpleTrainer
from torch.optim import SGD

from dense_kd import CrossKD, Distiller, GIBox
from dense_kd.detectors import DenseDetector
from dense_kd.engine import Trainer
from dense_kd.methods import Needs
from dense_kd.outputs import DensePass
from helpers.builders import batch, tiny_atss, tiny_fcos, tiny_gfl
from helpers.feature_cases import distill
from helpers.method_cases import build, every_method, images_with, teacher_of

BOXES = [[4.0, 6.0, 40.0, 44.0], [20.0, 10.0, 58.0, 60.0]]
PARTS = {
    "features": ("features", lambda dense: dense.features),
    "logits": ("class logits", lambda dense: dense.logits),
    "deltas": ("box codes", lambda dense: dense.deltas),
    "quality": ("centerness logits|iou logits", lambda dense: dense.quality),
    "distribution": ("distributions", lambda dense: dense.distribution),
    "taps": ("tower features", lambda dense: [x for tap in dense.taps.values() for x in tap]),
}


@contextlib.contextmanager
def spoilt(
    model: Distiller,
    part: str,
    value: float,
    everywhere: bool = False,
    teacher: DenseDetector | None = None,
) -> Iterator[None]:
    """Let one value, or all, of a part of the teacher's pass be ``value``."""
    teacher = model.teacher.model if teacher is None else teacher
    real = teacher.pass_of

    def pass_of(*given: Any) -> DensePass:
        dense = real(*given)
        levels = PARTS[part][1](dense)
        for level in levels if everywhere else levels[-1:]:
            level[... if everywhere else (-1,) * level.dim()] = value
        return dense

    teacher.pass_of = pass_of
    yield
    teacher.pass_of = real


def parts_of(model: Distiller) -> list[str]:
    """Those that the teacher's pass has."""
    student = model.student
    images = student.preprocess_image(images_with(BOXES))
    needs = needs_of(model)
    dense = teacher_of(model).run([], images, student, needs.taps)
    read = PARTS if needs.predictions else ("features", "taps")
    return [part for part in read if PARTS[part][1](dense)]


def needs_of(model: Distiller) -> Needs:
    """What of its teacher the method reads, or the one inside."""
    return getattr(model.kd.feature, "method", model.kd.feature).needs


@every_method
def test_no_method_swallows_a_teacher_that_gives_nan(name, variant):
    model = build(name, variant)
    parts = parts_of(model)
    assert {"logits", "deltas"} <= set(parts) or not needs_of(model).predictions
    for part in parts:
        with spoilt(model, part, float("nan"), everywhere=True, teacher=teacher_of(model).model):
            losses = model(images_with(BOXES, []))
        ours = [loss for key, loss in losses.items() if key.startswith("kd_")]
        assert ours and all(loss.isnan() for loss in ours), part
        with pytest.raises(FloatingPointError, match=f"teacher's pass.*({PARTS[part][0]})"):
            sum(losses.values()).backward()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("part", PARTS)
def test_one_value_of_any_part_is_enough(part, value):
    head = {"reg_max": 8}
    model = distill(tiny_atss(head=head), tiny_atss(seed=1, head=head), m=CrossKD(depth=1))
    with spoilt(model, part, value):
        losses = model(batch())
    with pytest.raises(FloatingPointError, match=f"teacher's pass.*in its ({PARTS[part][0]})"):
        losses["kd_m_loss_cls"].backward()


def gibox() -> Distiller:
    return distill(tiny_gfl(), tiny_gfl(seed=1), m=GIBox())


def test_the_next_step_says_so_if_no_backward_pass_did():
    model = gibox()
    with spoilt(model, "deltas", float("nan")):
        assert model(batch())["kd_m_loss_feature"].isnan()
    with pytest.raises(FloatingPointError, match=r"in its box codes\. Look at .* precision"):
        model(batch())


@every_method
def test_a_finite_pass_leaves_the_losses_as_they_are(name, variant):
    watched, alone = build(name, variant), build(name, variant)
    alone.load_state_dict(watched.state_dict())
    alone.kd._watch.look = lambda *_: 0.0
    alone.kd._watch.guard = lambda losses, zero_or_nan: None
    found = []
    for model in (watched, alone):
        torch.manual_seed(0)
        found.append(model(images_with(BOXES, [])))
    assert all(torch.equal(loss, found[1][key]) for key, loss in found[0].items())


def test_large_values_that_are_finite_are_no_fault():
    model = gibox()
    with spoilt(model, "features", torch.finfo(torch.float32).max, everywhere=True):
        sum(model(batch()).values()).backward()  # the trainer names the loss, not the teacher


def test_a_step_of_a_finite_teacher_trains_and_keeps_nothing():
    model = gibox()
    optimizer = SGD(model.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        sum(model(batch()).values()).backward()
        optimizer.step()
        assert model.kd._watch._looks == []


def test_a_copy_of_the_model_has_looked_at_nothing():
    model = gibox()
    with spoilt(model, "logits", float("nan")):
        model(batch())
    for twin in (copy.deepcopy(model.kd), pickle.loads(pickle.dumps(model.kd))):
        assert twin._watch._looks == []
    assert len(model.kd._watch._looks) == 1


def test_a_teacher_in_half_precision_that_overflows_is_named():
    model = distill(tiny_fcos(), tiny_fcos(seed=1), precision="bfloat16", m=GIBox())
    with torch.no_grad():
        model.teacher.model.backbone.fpn_output3.weight.mul_(1e38)
    with pytest.raises(FloatingPointError, match="teacher's pass.*features.*precision"):
        sum(model(batch()).values()).backward()


@pytest.mark.parametrize("kind", [SimpleTrainer, Trainer])
def test_a_trainer_stops_before_its_step_and_says_that_it_was_the_teacher(kind):
    model = gibox()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.teacher.model.head.cls_score.bias.fill_(float("nan"))
    trainer = kind(model, [batch()] * 2, SGD(model.parameters(), lr=1.0))
    with pytest.raises(FloatingPointError, match="teacher's pass.*class logits"):
        trainer.train(0, 2)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
