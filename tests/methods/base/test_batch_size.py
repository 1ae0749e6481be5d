"""Of which methods the losses grow with the images of a process: the run says so, once."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
import torch

from dense_kd import FKD, LD, PGD, methods
from helpers.additive_methods import NOT_ADDITIVE
from helpers.method_cases import VARIANTS, build, images_with

Options = dict[str, Any]
CASES: list[tuple[str, str | None, Options]] = [
    *[(name, variant, {}) for name, variant in VARIANTS],
    ("BCKD", None, {"normalize": "none"}),
    ("KD", None, {"normalize": "none"}),
    ("LD", None, {"normalize": "images"}),
    ("LD", None, {"main_weight": 0.0, "vlr_weight": 0.0}),
    ("LD", None, {"vlr_weight": 0.0, "cls_weight": 0.0}),
    ("MGD", None, {"masked_ratio": 0.0}),
]
OBJECTS = [[4.0, 6.0, 40.0, 50.0], [30.0, 20.0, 60.0, 62.0]]


def losses(name: str, variant: str | None, options: Options, images: int) -> torch.Tensor:
    """(terms,) of a batch with so many times the same image."""
    model = build(name, variant, **options)
    if hasattr(model.student, "loss_normalizer_momentum"):
        model.student.loss_normalizer_momentum = 0.0  # the first step would still hold its start
    torch.manual_seed(0)
    found = model([dict(image) for image in images_with(OBJECTS) * images])
    return torch.stack([loss for key, loss in found.items() if key.startswith("kd_")]).detach()


@pytest.mark.parametrize(("name", "variant", "options"), CASES, ids=str)
def test_a_method_warns_exactly_if_its_losses_grow_with_the_images(
    name: str, variant: str | None, options: Options
):
    two, eight = (losses(name, variant, options, images) for images in (2, 8))
    grows = bool((eight > 1.5 * two).any())  # the statistics of more images differ somewhat
    method = build(name, variant, **options).kd.feature
    warned = [method.images_warning(images) is not None for images in (1, 2, 4, 8, 16)]
    if grows:
        assert sum(warned) == len(warned) - 1  # all but the published number
    else:
        assert not any(warned)


def test_the_split_of_a_batch_of_sixteen_changes_ld_by_eight():
    one = losses("LD", None, {"cls_weight": 0.0}, 2)
    torch.testing.assert_close(losses("LD", None, {"cls_weight": 0.0}, 16), 8 * one)
    warning = LD().images_warning(16)
    assert "loss_main and loss_vlr: sums" in warning and "they weigh 8 times as much" in warning
    assert "set normalize='images'" in warning
    assert LD(vlr_weight=0.0).images_warning(3).startswith("loss_main: sums")
    assert "weigh 2.83 times" in FKD().images_warning(16)  # the root of 8
    assert PGD(compat="released").images_warning(4) is None


def test_a_run_warns_once_and_names_the_method(caplog):
    model = build("LD")
    with caplog.at_level(logging.WARNING, "dense_kd"):
        for _ in range(2):
            model(images_with(OBJECTS))
    (record,) = caplog.records
    assert (
        record.message.startswith("method 'feature' (LD): ") and "With the 1 here" in record.message
    )


def test_a_run_as_published_does_not_warn(caplog):
    with caplog.at_level(logging.WARNING, "dense_kd"):
        build("LD")(images_with(OBJECTS, OBJECTS))
    assert not caplog.records


def test_methods_of_which_the_split_matters_say_so():
    for name in {name for name, *_ in NOT_ADDITIVE}:
        method = getattr(methods, name)
        module = sys.modules[method.__module__]
        assert "split" in method.__doc__ or "split" in module.__doc__, name
