"""Our FCOS against detectron2 main's own, made of the same LazyConfig with the same parameters."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.structures import Boxes
from omegaconf import DictConfig
from torch import nn

from dense_kd import compat
from dense_kd.detectors import FCOS, from_detectron2
from helpers.builders import (
    CASES,
    assert_close,
    batch,
    fcos_config,
    group_norm_8,
    instances,
    randomized,
)
from helpers.comparison import assert_equal_detections, assert_equal_training

pytestmark = pytest.mark.skipif(not compat.HAS_DETECTRON2_FCOS, reason="detectron2 0.5 has no FCOS")


def stock_config(normalize_by_size: bool | None = None, **options) -> DictConfig:
    """detectron2's FCOS with the parts of :func:`fcos_config`.

    Args:
        normalize_by_size: of the box transform; None leaves the transform to the class.
        options: of :func:`fcos_config`.
    """
    config = fcos_config(**options)
    config._target_ = compat.Detectron2FCOS
    config.head._target_ = compat.Detectron2FCOSHead
    if normalize_by_size is not None:
        config.box2box_transform = L(compat.Box2BoxTransformLinear)(
            normalize_by_size=normalize_by_size
        )
    return config


def make_pair(**options) -> tuple[FCOS, nn.Module]:
    """Ours and detectron2's with equal parameters, loaded strictly in both directions."""
    config = stock_config(**options)
    ours, stock = instantiate(from_detectron2(config)), randomized(instantiate(config), seed=3)
    ours.load_state_dict(stock.state_dict(), strict=True)
    randomized(stock, seed=4).load_state_dict(ours.state_dict(), strict=True)
    return ours, stock


@pytest.mark.parametrize("radius", [1.5, 0.5])
@pytest.mark.parametrize("normalize", [None, True, False], ids=["default", "strides", "pixels"])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_equal_detectron2s_over_three_steps(
    case: str, normalize: bool | None, radius: float
):
    ours, stock = make_pair(normalize_by_size=normalize, center_sampling_radius=radius)
    assert_equal_training(ours, stock, [batch("usual"), batch(case, seed=1), batch(case, seed=2)])


@pytest.mark.parametrize("norm", ["", group_norm_8, "BN"], ids=["none", "GN", "BN"])
def test_training_and_detections_equal_detectron2s_with_every_norm_on_five_levels(norm):
    ours, stock = make_pair(num_levels=5, norm=norm)
    assert min(assert_equal_detections(ours, stock, batch("usual", seed=5))) > 0
    assert_equal_training(ours, stock, [batch("usual")])


def test_training_equals_detectron2s_with_zero_area_and_identical_boxes():
    inputs = batch("usual")
    inputs[0]["instances"] = instances(
        (64, 96),
        [[10, 10, 10, 40], [20, 20, 20, 20], [8, 8, 60, 50], [8, 8, 60, 50], [8, 8, 60, 50]],
        [0, 1, 2, 3, 2],
    )
    ours, stock = make_pair()
    assert_equal_training(ours, stock, [inputs, inputs])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"test_score_thresh": 0.4, "test_nms_thresh": 0.3},
        {"test_topk_candidates": 7},
        {"max_detections_per_image": 5},
        {"test_score_thresh": 1.0},
        {"head_in_features": ["p4", "p5"], "test_score_thresh": 0.1},
        {"normalize_by_size": False},
    ],
    ids=lambda options: ", ".join(options) or "defaults",
)
def test_detections_equal_detectron2s(options: dict):
    ours, stock = make_pair(**options)
    counts = assert_equal_detections(ours, stock, batch("usual"))
    assert counts == [0, 0] if options.get("test_score_thresh") == 1.0 else min(counts) > 0


def test_labels_boxes_and_centerness_equal_detectron2s():
    ours, stock = make_pair()
    inputs = batch("one empty")
    dense = ours.run(ours.preprocess_image(inputs))
    targets = ours.targets(dense, ours.ground_truth(inputs))
    anchors = [Boxes(priors) for priors in dense.priors]
    labels, boxes = stock.label_anchors(anchors, [x["instances"] for x in inputs])
    foreground = targets.foreground
    assert torch.equal(targets.labels, torch.stack(labels))
    assert torch.equal(targets.boxes[foreground], torch.stack(boxes)[foreground])
    expected = stock.compute_ctrness_targets(anchors, boxes)
    assert_close(targets.quality[foreground], expected[foreground])
    assert (targets.quality[~foreground] == 0).all()
