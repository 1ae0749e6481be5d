"""AutoAssign against values of mmdetection's, from the features of the pyramid on: see
golden/README.md."""

from __future__ import annotations

import pytest
import torch

from dense_kd.detectors import AutoAssign, AutoAssignHead
from dense_kd.detectors.assignment.soft import Pairs, points_inside
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

PRIOR_NOISE = 1e-6  # 6.2e-8 was measured
CASES = pytest.mark.parametrize("case", ["a", "b"])


@pytest.fixture
def reference() -> Reference:
    return make_reference(
        "det_autoassign", AutoAssignHead(**head_arguments("det_autoassign")), AutoAssign
    )


def test_defaults_are_those_of_the_reference(reference: Reference):
    test, head = reference.meta["test_cfg"], reference.meta["bbox_head"]
    model = reference.model
    assert model.test_score_thresh == test["score_thr"]
    assert model.test_nms_thresh == test["nms"]["iou_threshold"]
    assert model.test_topk_candidates == test["nms_pre"]
    assert model.max_detections_per_image == test["max_per_img"]
    assert model.strides == head["strides"]
    assert model.box_loss_weight == head["loss_bbox"]["loss_weight"]


@pytest.mark.parametrize("training", [True, False])
def test_head_outputs_equal_the_reference(reference: Reference, training: bool):
    model, data = reference.model.train(training), reference.data
    outputs, _ = model.head.run(list(reference.features.values()))
    for level, stride in enumerate(model.strides):
        distances = outputs.deltas[level].relu() * stride
        expected = data[f"{'head' if training else 'head_eval'}/reg/l{level}"]
        assert_close(distances, expected, FEATURE_NOISE, f"box, level {level}")
        assert_close(
            outputs.logits[level], data[f"head/cls/l{level}"], FEATURE_NOISE, f"class, {level}"
        )
        assert_close(
            outputs.quality[level], data[f"head/obj/l{level}"], FEATURE_NOISE, f"obj, {level}"
        )


def test_taps_equal_the_features_of_the_reference_towers(reference: Reference):
    assert_equal_taps(reference)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_resuming_from_the_reference_features_gives_the_reference_outputs(
    reference: Reference, depth: int
):
    outputs = resume_from_reference(reference, depth)
    assert_close(outputs.logits[1], reference.data["head/cls/l1"], FEATURE_NOISE, "class")
    assert_close(outputs.quality[1], reference.data["head/obj/l1"], FEATURE_NOISE, "objectness")
    assert_close(outputs.deltas[1].relu() * 16, reference.data["head/reg/l1"], FEATURE_NOISE, "box")


@CASES
def test_points_and_the_boxes_they_are_in_equal_the_reference(reference: Reference, case: str):
    dense = reference.run()
    priors = torch.cat(dense.priors)
    points = (priors[:, :2] + priors[:, 2:]) / 2
    for image, instances in enumerate(reference.ground_truth(case)):
        boxes = instances.gt_boxes.tensor
        distances = torch.cat((points[:, None] - boxes[:, :2], boxes[:, 2:] - points[:, None]), 2)
        assert torch.equal(distances, reference.data[f"{case}/img{image}/bbox_targets"])
        inside = points_inside(priors, boxes)
        for mask in ("inside_mask", "inside_gt_bbox_mask_raw"):
            assert torch.equal(inside, reference.data[f"{case}/img{image}/{mask}"])


@CASES
def test_centre_priors_equal_the_reference(reference: Reference, case: str):
    priors = torch.cat(reference.run().priors)
    for image, instances in enumerate(reference.ground_truth(case)):
        pairs = Pairs.find(priors, instances)
        expected = reference.data[f"{case}/img{image}/center_prior_weight"]  # (R, M)
        found = torch.zeros_like(expected)
        found[pairs.points, pairs.objects] = reference.model.log_prior(priors, pairs).exp()
        assert_close(found, expected, PRIOR_NOISE, f"image {image}")
        assert torch.equal(found > 0, expected > 0)


@CASES
def test_the_foreground_of_methods_is_what_the_reference_has_inside_of_boxes(
    reference: Reference, case: str
):
    targets = reference.targets(reference.run(), case)
    counts = []
    for image, instances in enumerate(reference.ground_truth(case)):
        inside = reference.data[f"{case}/img{image}/inside_mask"]
        counts.append(len(instances))
        assert torch.equal(targets.foreground[image], inside.any(dim=1))
        assert targets.valid[image].all()
        for point in targets.foreground[image].nonzero()[:, 0].tolist():
            holds = inside[point].nonzero()[:, 0].tolist()
            areas = instances.gt_boxes.area()
            best = min(holds, key=lambda index: areas[index].item())
            assert targets.labels[image, point] == instances.gt_classes[best]
            assert torch.equal(targets.boxes[image, point], instances.gt_boxes.tensor[best])
    assert targets.normalizer == sum(counts) and counts == {"a": [5, 3], "b": [3, 0]}[case]


@CASES
def test_losses_equal_the_reference(reference: Reference, case: str):
    dense = reference.run()
    losses = reference.model.losses(dense, reference.targets(dense, case))
    assert list(losses) == ["loss_pos", "loss_neg", "loss_center"]
    for name, loss in losses.items():
        expected = reference.data[f"{case}/loss/{name}"]
        assert expected > 0
        assert_close(loss, expected, LOSS_NOISE, name)
    assert_close(sum(losses.values()), reference.data[f"{case}/loss_total"], LOSS_NOISE)


@CASES
def test_gradients_equal_the_reference(reference: Reference, case: str):
    assert_equal_gradients(reference, case, {"a": 7, "b": 1}[case])


def test_detections_equal_the_reference(reference: Reference):
    assert_equal_detections(reference, (100, 100))
