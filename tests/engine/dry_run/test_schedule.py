"""The learning rate of a run in a few numbers, whatever its schedule."""

from __future__ import annotations

import math

import pytest
from detectron2.config import instantiate
from fvcore.common.param_scheduler import ConstantParamScheduler

from dense_kd.engine.dry_run.schedule import schedule, turning_points
from helpers.checked_runs import load
from helpers.configs import load as load_config


def points(multiplier, max_iter):
    return turning_points(lambda iteration: float(multiplier(iteration / max_iter)), max_iter)


def test_a_step_schedule_has_its_warm_up_and_its_drops_at_their_iterations():
    facts = schedule(load_config("gfl/r50_1x.py"), num_images=117266)
    assert [(place, what) for place, _, what in facts.rates] == [
        (0, "start"),
        (500, "after the warm-up"),
        (60000, "drop"),
        (82500, "drop"),
        (89999, "end"),
    ]
    rates = [rate for _, rate, _ in facts.rates]
    assert rates == pytest.approx([1e-5, 1e-2, 1e-3, 1e-4, 1e-4], rel=1e-3)
    assert facts.epochs == pytest.approx(12.28, abs=0.01)
    assert (facts.optimizer, facts.clip_grad, facts.precision) == ("SGD", None, "float32")
    assert facts.num_evaluations == 18


def test_a_warm_up_may_be_a_jump():
    facts = schedule(load_config("fcos/mmdet_r50_1x.py"), None)
    assert facts.rates[0][1] == pytest.approx(0.01 / 3)
    assert facts.rates[1] == (500, pytest.approx(0.01), "after the warm-up")
    assert facts.epochs is None


def test_a_cosine_has_no_drops():
    facts = schedule(load("train.max_iter=1000", "train.eval_period=300"), 4)
    (_, first, _), (place, highest, _), (last, end, _) = facts.rates
    assert place == 100 and last == 999 and end < first < highest < 2e-3
    assert facts.epochs == 500 and facts.clip_grad == 10 and facts.num_evaluations == 4


def test_a_constant_rate_has_a_start_and_an_end():
    assert points(ConstantParamScheduler(0.5), 3) == [(0, 0.5, "start"), (2, 0.5, "end")]
    assert points(ConstantParamScheduler(0.5), 1) == [(0, 0.5, "start")]
    assert points(lambda where: 1 - where, 10**6)[1:] == [(10**6 - 1, pytest.approx(1e-6), "end")]
    assert [p[2] for p in points(lambda where: math.exp(-9 * where), 50)] == ["start", "end"]


def test_a_run_of_one_iteration_has_a_rate():
    cfg = load("train.max_iter=1")
    assert schedule(cfg, 4).rates == [(0, pytest.approx(8e-5), "start")]
    assert instantiate(cfg.lr_multiplier)(0.0) * cfg.optimizer.lr == pytest.approx(8e-5)
