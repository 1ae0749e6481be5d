"""What passes between a detector and a method."""

from __future__ import annotations

import pytest
import torch

from helpers.builders import batch, tiny_atss, tiny_fcos, tiny_gfl, tiny_retinanet


@pytest.mark.parametrize("build", [tiny_retinanet, tiny_fcos, tiny_atss, tiny_gfl])
def test_boxes_carry_gradient_even_if_they_are_first_read_without_it(build):
    model = build()
    dense = model.run(model.preprocess_image(batch()))
    with torch.no_grad():
        boxes = dense.boxes
    assert boxes is dense.boxes and all(level.requires_grad for level in boxes)
    sum(level.sum() for level in boxes).backward()
    assert model.head.bbox_pred.weight.grad.abs().sum() > 0


def test_boxes_of_a_pass_without_gradient_have_none():
    model = tiny_fcos()
    with torch.no_grad():
        dense = model.run(model.preprocess_image(batch()))
        assert not any(level.requires_grad for level in dense.boxes)
    with torch.inference_mode():
        assert model.run(model.preprocess_image(batch())).boxes[0].is_inference()
