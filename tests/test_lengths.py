"""Lists that belong together are equally long, or it is said which are not."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dense_kd.lengths import zip_equal
from dense_kd.methods.base.adapters import WidthAdapters
from helpers.builders import batch, tiny_autoassign, tiny_ddod, tiny_fcos, tiny_gfl, tiny_retinanet


def test_equal_lists_are_zipped_and_unequal_ones_named():
    assert list(zip_equal(a=[1, 2], b="xy")) == [(1, "x"), (2, "y")]
    with pytest.raises(ValueError, match=r"lengths \{'a': 1, 'b': 2\}: expected equal ones"):
        zip_equal(a=[1], b="xy")


@pytest.mark.parametrize(
    "field", ["features", "logits", "deltas", "priors", "strides", "quality", "distribution"]
)
def test_a_pass_has_as_many_levels_in_all_it_holds(field: str):
    model = {"quality": tiny_fcos, "distribution": tiny_gfl}.get(field, tiny_retinanet)()
    dense = model.run(model.preprocess_image(batch("usual")))
    with pytest.raises(ValueError, match=rf"'{field}': 2.*same levels"):
        dataclasses.replace(dense, **{field: getattr(dense, field)[:2]})


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("build", [tiny_retinanet, tiny_ddod])
def test_ground_truth_of_other_images_is_refused(build, count: int):
    model, inputs = build(), batch("usual")
    dense = model.run(model.preprocess_image(inputs))
    truth = (2 * model.ground_truth(inputs))[:count]
    with pytest.raises(ValueError, match=f"{count}"):
        model.targets(dense, truth)


@pytest.mark.parametrize("build", [tiny_retinanet, tiny_fcos, tiny_autoassign])
def test_a_head_takes_the_levels_it_was_built_for(build):
    head, maps = build().head, [torch.zeros(1, 16, 2, 2)] * 4
    for count in (2, 4):
        with pytest.raises(ValueError, match=rf"'cls': {count}.*'levels_of_the_head': 3"):
            head.run(maps[:count])
    with pytest.raises(ValueError, match="'cls': 3, 'bbox': 2"):
        head.resume({"cls": maps[:3], "bbox": maps[:2]}, 1)


def test_adapters_take_the_levels_they_were_built_for():
    with pytest.raises(ValueError, match="'adapters': 3, 'features': 2"):
        WidthAdapters(3, 4, 8)([torch.zeros(1, 4, 2, 2)] * 2)
