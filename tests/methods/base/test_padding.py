"""Methods that leave locations in the padding of an image out take all of one without padding."""

from __future__ import annotations

import inspect

import pytest
import torch

from dense_kd.detectors import DistanceCoder
from dense_kd.methods import method_classes
from helpers.builders import instances, tiny_fcos, tiny_gfl
from helpers.feature_cases import distill

METHODS = {
    name: value
    for name, value in method_classes().items()
    if "padding_multiple" in inspect.signature(value).parameters
}
SIZE = (160, 200)
"""On the coarsest of five levels points in the middle of their cells are beyond such an image."""


def fcos_of_distributions(**options):
    options["head"] = {"reg_max": 16}
    return tiny_fcos(box2box_transform=DistanceCoder(activation="identity"), **options)


def test_there_are_such_methods():
    assert {"LD", "PGD", "TID"} <= set(METHODS)


@pytest.mark.parametrize("build", [fcos_of_distributions, tiny_gfl])
@pytest.mark.parametrize("name", METHODS)
def test_an_image_that_fills_its_batch_has_no_padding(name: str, build):
    image = torch.randint(256, (3, *SIZE), generator=torch.Generator().manual_seed(0))
    truth = instances(SIZE, [[20, 20, 190, 150], [100, 90, 199, 159]], [1, 2])
    inputs = [{"image": image.to(torch.uint8), "instances": truth}]
    losses = []
    for multiple in (32, None):
        student, teacher = (build(num_levels=5, seed=seed) for seed in range(2))
        torch.manual_seed(0)  # of the adapters of a method
        model = distill(student, teacher, METHODS[name](padding_multiple=multiple))
        losses.append({k: v.item() for k, v in model(inputs).items() if k.startswith("kd_")})
    assert losses[0] == losses[1] and any(losses[0].values())
