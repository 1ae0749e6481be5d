"""Runs that are killed at random points end bit for bit as runs that nobody stops.

``make test-kill`` kills more often, and elsewhere each time.
"""

from __future__ import annotations

import os
import random

import pytest

from helpers.killed_legs import Point, Runs, digests
from helpers.killed_runs import ITERATIONS, VARIANTS

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("DENSE_KD_KILLS", 3))
"""Of each run."""
SEED = os.environ.get("DENSE_KD_KILL_SEED", "0")
"""Of the points at which it is killed."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    return Runs(tmp_path_factory.mktemp("killed"))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_that_is_killed_ends_bit_for_bit_as_one_that_is_not(name, runs):
    whole, points = runs.whole(name)
    killed, chosen = runs.killed(name, points, KILLS, random.Random(f"{SEED} {name}"))
    assert digests(killed) == digests(whole), f"seed {SEED}, killed at {chosen}"
    assert not [path.name for path in killed.iterdir() if ".tmp" in path.name]


def test_a_loss_that_a_process_rounds_otherwise_in_its_first_steps_would_be_found(runs):
    name = "RetinaNet, workers"
    whole, _ = runs.whole(name, scripted=True)
    again, _ = runs.whole(name, scripted=True)
    point = Point(0, ITERATIONS // 2, "step", 1)
    killed, _ = runs.killed(name, [point], 1, random.Random(0), scripted=True)
    assert digests(again) == digests(whole)
    assert digests(killed)["model"] != digests(whole)["model"]
