"""A teacher's cache on a GPU: the host waits for nothing, and losses are those without it."""

from __future__ import annotations

import pytest
import torch

from dense_kd import BCKD, PKD, CrossKD, Teacher
from dense_kd.benchmark.pretended import pretended_gpu
from helpers.builders import tiny_gfl
from helpers.device_costs import of_step
from helpers.feature_cases import distill
from helpers.method_cases import images_with

METHODS = {"BCKD": BCKD, "PKD": PKD, "CrossKD": lambda: CrossKD(depth=1)}
IMAGES = images_with([[4.0, 6.0, 40.0, 44.0], [20.0, 10.0, 58.0, 60.0]], [])


@pytest.fixture
def gpu():
    with pretended_gpu() as gpu:
        yield gpu


@pytest.mark.parametrize("name", METHODS)
def test_no_stop_is_added_and_losses_are_equal(gpu, name):
    model = distill(tiny_gfl(), tiny_gfl(seed=1), METHODS[name]()).to("cuda")
    model(IMAGES)  # loads
    expected, plain = model(IMAGES), of_step(gpu, model)
    teacher = model.teacher = Teacher(model.teacher.model, None, cache="memory")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        model(IMAGES)
    model(IMAGES)
    found = model(IMAGES)
    assert teacher.cache.found == 2  # the first of each precision were new
    for key, loss in expected.items():
        torch.testing.assert_close(found[key], loss)
    hit = of_step(gpu, model)
    assert teacher.cache.found == 4
    assert (hit.stops, hit.uploads) == (plain.stops, plain.uploads)
    assert hit.kernels < plain.kernels


def test_a_step_of_new_images_waits_as_often_as_one_without_a_cache(gpu):
    model = distill(tiny_gfl(), tiny_gfl(seed=1), BCKD()).to("cuda")
    model(IMAGES)
    plain = of_step(gpu, model)
    model.teacher = Teacher(model.teacher.model, None, cache="memory")
    model([{**x, "image": x["image"] + 1} for x in IMAGES])  # reads the weights once
    new = of_step(gpu, model)
    assert model.teacher.cache.found == 0
    assert (new.stops, new.uploads) == (plain.stops, plain.uploads)


def test_known_and_new_images_are_put_together_there(gpu):
    model = distill(tiny_gfl(), tiny_gfl(seed=1), BCKD(), pkd=PKD()).to("cuda")
    expected = model(IMAGES)
    model.teacher = Teacher(model.teacher.model, None, cache="memory", cache_precision="float16")
    for images, found in ((IMAGES[1:], 0), (IMAGES, 1), (IMAGES, 3)):
        losses = model(images)
        assert model.teacher.cache.found == found
    for key, loss in expected.items():
        torch.testing.assert_close(losses[key], loss, rtol=5e-3, atol=1e-3)
