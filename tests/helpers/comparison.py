"""Compares a detector of ours with detectron2's own that has the same parameters."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from helpers.builders import assert_close


def assert_equal_training(
    ours: nn.Module, stock: nn.Module, batches: list[list[dict]], tolerance: float = 1e-5
) -> None:
    """Train both; losses, gradients and the state after every step are equal."""
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01) for m in (ours, stock)]
    for step, inputs in enumerate(batches):
        with EventStorage(step) as storage:
            expected = stock.train()(copy.deepcopy(inputs))
            expected_positives = storage.latest()["num_pos_anchors"]
        with EventStorage(step) as storage:
            losses = ours.train()(copy.deepcopy(inputs))
            assert storage.latest()["num_pos_anchors"] == expected_positives
        assert list(losses) == list(expected)
        for name, loss in losses.items():
            assert_close(loss, expected[name], tolerance, f"step {step} {name}")
        for optimizer, total in zip(optimizers, (losses, expected)):
            optimizer.zero_grad()
            sum(total.values()).backward()
        references = dict(stock.named_parameters())
        # A bias before a norm has a gradient of nothing but rounding.
        gradients = [p.grad for p in stock.parameters() if p.grad is not None]
        scale = 0.1 * max(gradient.abs().max().item() for gradient in gradients)
        for name, parameter in ours.named_parameters():
            assert (parameter.grad is None) == (references[name].grad is None), name
            if parameter.grad is not None:
                what = f"step {step} gradient of {name}"
                assert_close(parameter.grad, references[name].grad, tolerance, what, scale)
        for optimizer in optimizers:
            optimizer.step()
        assert ours.loss_normalizer.item() == pytest.approx(stock.loss_normalizer, rel=1e-6)
        state = stock.state_dict()
        for name, tensor in ours.state_dict().items():
            assert_close(tensor, state[name], tolerance, name)
        # A rounding error that is carried on can switch a ReLU on or off in a later step.
        ours.load_state_dict(state)


@torch.no_grad()
def assert_equal_detections(ours: nn.Module, stock: nn.Module, inputs: list[dict]) -> list[int]:
    """Returns the number of detections per image."""
    results, expected = ours.eval()(inputs), stock.eval()(inputs)
    assert len(results) == len(expected) == len(inputs)
    for result, reference in zip(results, expected):
        result, reference = result["instances"], reference["instances"]
        assert result.image_size == reference.image_size
        assert_close(result.scores, reference.scores, what="scores")
        assert_close(result.pred_boxes.tensor, reference.pred_boxes.tensor, what="boxes")
        assert result.pred_classes.tolist() == reference.pred_classes.tolist()
    return [len(result["instances"]) for result in results]
