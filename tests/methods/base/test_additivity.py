"""Of which methods the losses of a batch are the mean of those of its images, and of which not.

Where they are, several processes with a part of the batch each give what one with all of it does.
"""

from __future__ import annotations

import pytest
import torch

from helpers.additive_methods import ADDITIVE, NOT_ADDITIVE, Options
from helpers.feature_cases import move_off_their_start
from helpers.method_cases import ALL, build, images_with

# Of unequal number and size, so that the images have unequally many cells and positives; each has
# a location in the middle of an object.
OBJECTS = ([[4.0, 6.0, 40.0, 50.0], [30.0, 20.0, 60.0, 62.0]], [[13.0, 13.0, 34.0, 35.0]])


def losses(name: str, options: Options) -> tuple[torch.Tensor, torch.Tensor]:
    """(terms,) of both images at once, and (2, terms) of each by itself."""
    images = images_with(*OBJECTS)
    found = []
    for batch in (images, images[:1], images[1:]):
        model = build(name, **options)
        move_off_their_start(model.kd)
        terms = model(batch)
        found.append(torch.stack([v for k, v in terms.items() if k.startswith("kd_")]).detach())
    return found[0], torch.stack(found[1:])


def test_every_method_is_in_a_list_and_nothing_else():
    assert sorted({name for name, *_ in (*ADDITIVE, *NOT_ADDITIVE)}) == ALL


@pytest.mark.parametrize(("name", "options"), ADDITIVE, ids=str)
def test_two_images_give_the_mean_of_each(name: str, options: Options):
    both, each = losses(name, options)
    assert (each > 0).all()
    torch.testing.assert_close(
        both,
        each.mean(dim=0),
        rtol=1e-4,
        atol=0,
        msg=lambda found: f"{found}\n\nIf they cannot, list {name} with the reason in NOT_ADDITIVE",
    )


@pytest.mark.parametrize(
    ("name", "options", "reason"), NOT_ADDITIVE, ids=[f"{x[0]}-{x[1]}" for x in NOT_ADDITIVE]
)
def test_two_images_do_not_give_the_mean_of_each(name: str, options: Options, reason: str):
    both, each = losses(name, options)
    assert ((both - each.mean(dim=0)).abs() > 1e-3 * both).any(), f"but {reason}"
