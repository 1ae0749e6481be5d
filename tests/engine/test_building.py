"""Objects of a config that build, and would do nothing."""

from __future__ import annotations

import re

import pytest

from dense_kd.engine import RunError
from dense_kd.engine.building import build_training_model
from dense_kd.engine.dry_run import dry_run
from helpers.checked_runs import load

FGFI = "quickstart/fgfi.py"
TWO = "quickstart/two_teachers.py"
INSIDE = "model.methods.pkd.method._target_=dense_kd.FGFI"


@pytest.mark.parametrize(
    ("config", "overrides", "said"),
    [
        (
            FGFI,
            ["train.max_iter=400"],
            "model.methods.fgfi: FGFI would never teach until train.max_iter=400: with "
            "warmup_iters=400 its losses are 0 there; give fewer warmup_iters, train for longer, "
            "or leave the method out",
        ),
        (
            TWO,
            ["train.max_iter=401", INSIDE, "model.methods.pkd.first_iter=1"],
            "until train.max_iter=401: with warmup_iters=400 and first_iter=1 its losses are 0",
        ),
        (
            TWO,
            ["train.max_iter=900", INSIDE, "model.methods.pkd.last_iter=400"],
            "until model.methods.pkd.last_iter=400: with warmup_iters=400 its losses are 0",
        ),
    ],
)
def test_a_method_that_would_never_teach_is_refused_before_the_first_batch(config, overrides, said):
    with pytest.raises(RunError, match=re.escape(said)):
        build_training_model(load("train.device=cpu", *overrides, config=config))


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        (FGFI, ["train.max_iter=401"]),
        (FGFI, ["train.max_iter=1", "model.methods.fgfi.warmup_iters=0"]),
        (TWO, ["train.max_iter=402", INSIDE, "model.methods.pkd.first_iter=1"]),
        ("quickstart/frs.py", ["train.max_iter=1"]),  # it rises, and is above 0 from the first on
    ],
)
def test_a_method_that_teaches_in_one_iteration_is_right(config, overrides):
    build_training_model(load("train.device=cpu", *overrides, config=config))


def test_a_run_that_is_tried_tells_it_too(tmp_path):
    overrides = ("train.max_iter=400", "train.device=cpu", f"train.output_dir={tmp_path / 'out'}")
    found = dry_run(load(*overrides, config=FGFI), num_images=1, num_steps=1)
    assert any("FGFI would never teach" in problem for problem in found.problems)
