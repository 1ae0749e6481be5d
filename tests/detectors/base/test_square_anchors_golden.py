"""ATSS, DDOD and GFL against values of mmdetection's, from the features of the pyramid on:
see golden/README.md."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dense_kd.detectors import ATSS, DDOD, GFL, ATSSHead, DDODHead, GFLHead
from dense_kd.losses import elementwise_iou
from dense_kd.outputs import DensePass, Targets
from helpers.builders import assert_close
from helpers.mmdet_reference import (
    FEATURE_NOISE,
    LOSS_NOISE,
    Reference,
    assert_equal_detections,
    assert_equal_gradients,
    assert_equal_taps,
    head_arguments,
    make_reference,
    resume_from_reference,
)

MODELS = {
    "det_atss": (ATSSHead, ATSS),
    "det_ddod": (DDODHead, DDOD),
    "det_gfl": (GFLHead, GFL),
}
LOSSES = {
    "det_atss": {
        "loss_cls": "loss_cls",
        "loss_box_reg": "loss_bbox",
        "loss_centerness": "loss_centerness",
    },
    "det_ddod": {"loss_cls": "loss_cls", "loss_box_reg": "loss_bbox", "loss_iou": "loss_iou"},
    "det_gfl": {"loss_cls": "loss_cls", "loss_box_reg": "loss_bbox", "loss_dfl": "loss_dfl"},
}
OVERLAP_NOISE, DELTA_NOISE = 6e-6, 6e-6  # ten times what was measured
CASES = pytest.mark.parametrize("case", ["a", "b"])


@pytest.fixture(params=list(MODELS))
def reference(request) -> Reference:
    head, model = MODELS[request.param]
    return make_reference(request.param, head(**head_arguments(request.param)), model)


def test_defaults_are_those_of_the_reference(reference: Reference):
    test, head = reference.meta["test_cfg"], reference.meta["bbox_head"]
    model = reference.model
    assert model.test_score_thresh == test["score_thr"]
    assert model.test_nms_thresh == test["nms"]["iou_threshold"]
    assert model.test_topk_candidates == test["nms_pre"]
    assert model.max_detections_per_image == test["max_per_img"]
    assert model.strides == head["anchor_generator"]["strides"]
    assert model.assigner.topk == reference.meta["train_cfg"]["assigner"]["topk"]
    assert model.box_loss_weight == head["loss_bbox"]["loss_weight"]
    if isinstance(model, GFL):
        assert model.head.reg_max == head["reg_max"]
        assert model.quality_focal_loss_beta == head["loss_cls"]["beta"]
        assert model.distribution_loss_weight == head["loss_dfl"]["loss_weight"]
    else:
        stds = head["bbox_coder"]["target_stds"]
        assert list(model.box2box_transform.weights) == [1 / std for std in stds]
        assert model.focal_loss_alpha == head["loss_cls"]["alpha"]
        assert model.focal_loss_gamma == head["loss_cls"]["gamma"]


def test_head_outputs_equal_the_reference(reference: Reference):
    outputs, _ = reference.model.head.run(list(reference.features.values()))
    maps = {"cls": outputs.logits, "reg": outputs.deltas or outputs.distribution}
    if outputs.quality:
        maps[{"det_atss": "ctr", "det_ddod": "iou"}[reference.name]] = outputs.quality
    assert len(maps) == (2 if reference.name == "det_gfl" else 3)
    for kind, levels in maps.items():
        for level, found in enumerate(levels):
            expected = reference.data[f"head/{kind}/l{level}"]
            assert_close(found, expected, FEATURE_NOISE, f"{kind}, level {level}")


def test_taps_equal_the_features_of_the_reference_towers(reference: Reference):
    assert_equal_taps(reference)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_resuming_from_the_reference_features_gives_the_reference_outputs(
    reference: Reference, depth: int
):
    outputs = resume_from_reference(reference, depth)
    box = outputs.deltas or outputs.distribution
    assert_close(outputs.logits[1], reference.data["head/cls/l1"], FEATURE_NOISE, "class")
    assert_close(box[1], reference.data["head/reg/l1"], FEATURE_NOISE, "box")


def test_anchors_equal_the_reference(reference: Reference):
    for level, priors in enumerate(reference.run().priors):
        assert torch.equal(priors, reference.data[f"anchors/l{level}"])


@CASES
def test_assignment_equals_the_reference(reference: Reference, case: str):
    targets = reference.targets(reference.run(), case)
    if reference.name == "det_ddod":
        assert_equal_assignment(reference, case, targets, "cls_")
        assert_equal_assignment(reference, case, targets.regression, "reg_")
        assert (targets.labels != targets.regression.labels).any()
    else:
        assert_equal_assignment(reference, case, targets, "")


def assert_equal_assignment(reference: Reference, case: str, targets: Targets, prefix: str) -> None:
    weights = reference.per_level(f"{case}/{prefix}label_weights")
    expected = reference.per_level(f"{case}/{prefix}labels").clone()
    expected[weights == 0] = -1
    assert (expected == -1).any() and targets.foreground.any()
    assert torch.equal(targets.labels, expected)
    assert torch.equal(targets.valid, weights > 0)
    assert targets.normalizer == reference.data[f"{case}/{prefix}avg_factor"]
    for image in range(2):
        matched = reference.data[f"{case}/img{image}/{prefix}gt_inds"]
        assert torch.equal(targets.valid[image], reference.data[f"{case}/img{image}/valid_flags"])
        assert torch.equal(targets.foreground[image], matched > 0)
        boxes = reference.data[f"{case}/img{image}/gt_bboxes"][matched[matched > 0] - 1]
        assert torch.equal(targets.boxes[image, targets.foreground[image]], boxes)
        dense = reference.run()
        fits = elementwise_iou(torch.cat(dense.priors)[matched > 0], boxes)
        if prefix:
            fits = ddod_fits(reference, dense, image, targets, prefix)
        expected = reference.data[f"{case}/img{image}/{prefix}max_overlaps"][matched > 0]
        assert_close(fits, expected, OVERLAP_NOISE, "overlaps")
    boxes = targets.boxes[targets.foreground]
    of_reference = reference.per_level(f"{case}/{prefix}bbox_targets", 4)[targets.foreground]
    if prefix:  # DDOD's are encoded
        priors = torch.cat(reference.run().priors).expand_as(targets.boxes)[targets.foreground]
        deltas = reference.model.box2box_transform.get_deltas(priors, boxes)
        assert_close(deltas, of_reference, DELTA_NOISE)
    else:
        assert torch.equal(boxes, of_reference)


def ddod_fits(
    reference: Reference, dense: DensePass, image: int, targets: Targets, prefix: str
) -> Tensor:
    """How well the positives of an image fit their boxes, (P,)."""
    model = reference.model
    alpha = (model.assigner if prefix == "cls_" else model.regression_assigner).alpha
    positive = targets.foreground[image]
    logits, boxes = (torch.cat(x, dim=1)[image, positive] for x in (dense.logits, dense.boxes))
    score = logits.gather(1, targets.labels[image, positive, None])[:, 0].sigmoid()
    overlap = elementwise_iou(boxes, targets.boxes[image, positive])
    return score ** (1 - alpha) * overlap**alpha


@CASES
def test_losses_equal_the_reference(reference: Reference, case: str):
    dense = reference.run()
    losses = reference.model.losses(dense, reference.targets(dense, case))
    names = LOSSES[reference.name]
    assert list(losses) == list(names)
    for ours, theirs in names.items():
        expected = reference.data[f"{case}/loss/{theirs}"].sum()
        assert expected > 0
        assert_close(losses[ours], expected, LOSS_NOISE, theirs)
    assert_close(sum(losses.values()), reference.data[f"{case}/loss_total"], LOSS_NOISE)


@CASES
def test_gradients_equal_the_reference(reference: Reference, case: str):
    count = 1 if case == "b" else {"det_gfl": 6}.get(reference.name, 7)
    assert_equal_gradients(reference, case, count)


def test_detections_equal_the_reference(reference: Reference):
    counts = (45, 54) if reference.name == "det_gfl" else (100, 100)
    assert_equal_detections(reference, counts)
