"""Weights under mmdetection's keys are those that mmdetection itself has written."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dense_kd import FCOS
from dense_kd.checkpoint import load_strictly
from dense_kd.errors import DenseKDError
from dense_kd.export.mmdet import to_mmdet
from helpers.builders import tiny_fcos
from helpers.mmdet_models import CONFIGS, checkpoint_path, detector


@pytest.mark.parametrize("name", CONFIGS)
def test_the_keys_and_numbers_are_those_of_mmdetections_own_file(name: str):
    model = detector(name)
    load_strictly(model, checkpoint_path(name))
    expected = torch.load(checkpoint_path(name), weights_only=True)["state_dict"]
    found = to_mmdet(model)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert "num_batches_tracked" in key or torch.equal(found[key], value), key


def test_weights_without_a_key_there_are_named():
    model = tiny_fcos()
    model.backbone.more = nn.Linear(2, 2)
    with pytest.raises(DenseKDError, match=r"no known key for 2 of .*backbone\.more\.weight"):
        to_mmdet(model)


def test_a_detector_that_mmdetection_does_not_have_is_refused():
    class Other(FCOS):
        pass

    model = tiny_fcos()
    model.__class__ = Other
    with pytest.raises(DenseKDError, match="Other is no detector of mmdetection's"):
        to_mmdet(model)
