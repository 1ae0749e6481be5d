"""FCOS against values of mmdetection's, from the features of the pyramid on: see golden/README.md.

The plain variant of the paper, and the one with mmdetection's later tricks (distances in strides,
centreness from the box tower, centre sampling, GIoU).
"""

from __future__ import annotations

import pytest
import torch

from dense_kd.detectors import FCOS, FCOSHead
from helpers.builders import assert_close
from helpers.detector_variants import FCOS_HEAD_OPTIONS, FCOS_OPTIONS
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

TARGET_NOISE = 1e-6  # ten roundings; none was measured


@pytest.fixture(params=list(FCOS_OPTIONS))
def reference(request) -> Reference:
    head = FCOSHead(
        level_scales=True, **head_arguments(request.param), **FCOS_HEAD_OPTIONS[request.param]
    )
    return make_reference(request.param, head, FCOS, **FCOS_OPTIONS[request.param])


def test_options_are_those_of_the_reference(reference: Reference):
    test, head = reference.meta["test_cfg"], reference.meta["bbox_head"]
    model = reference.model
    assert model.test_score_thresh == test["score_thr"]
    assert model.test_nms_thresh == test["nms"]["iou_threshold"]
    assert model.test_topk_candidates == test["nms_pre"]
    assert model.max_detections_per_image == test["max_per_img"]
    assert model.strides == head["strides"]
    assert model.box2box_transform.normalize_by_size == head.get("norm_on_bbox", False)
    assert (model.assigner.center_sampling_radius is not None) == head.get("center_sampling", False)
    assert head["loss_bbox"]["type"].lower() == f"{model.box_reg_loss_type}loss"
    assert head["loss_bbox"]["loss_weight"] == 1.0


def test_head_outputs_equal_the_reference(reference: Reference):
    outputs, _ = reference.model.head.run(list(reference.features.values()))
    exp = reference.model.box2box_transform.activation == "exp"
    for level in range(5):
        data = {kind: reference.data[f"head/{kind}/l{level}"] for kind in ("cls", "reg", "ctr")}
        deltas = outputs.deltas[level]
        assert_close(outputs.logits[level], data["cls"], FEATURE_NOISE, f"class, level {level}")
        assert_close(
            outputs.quality[level], data["ctr"], FEATURE_NOISE, f"centreness, level {level}"
        )
        assert_close(
            deltas.exp() if exp else deltas.relu(), data["reg"], FEATURE_NOISE, f"box, {level}"
        )


def test_taps_equal_the_features_of_the_reference_towers(reference: Reference):
    assert_equal_taps(reference)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_resuming_from_the_reference_features_gives_the_reference_outputs(
    reference: Reference, depth: int
):
    outputs = resume_from_reference(reference, depth)
    assert_close(outputs.logits[1], reference.data["head/cls/l1"], FEATURE_NOISE, "class")
    assert_close(outputs.quality[1], reference.data["head/ctr/l1"], FEATURE_NOISE, "centreness")
    exp = reference.model.box2box_transform.activation == "exp"
    distances = outputs.deltas[1].exp() if exp else outputs.deltas[1].relu()
    assert_close(distances, reference.data["head/reg/l1"], FEATURE_NOISE, "box")


def test_points_equal_the_reference(reference: Reference):
    for level, priors in enumerate(reference.run().priors):
        centers = (priors[:, :2] + priors[:, 2:]) / 2
        assert torch.equal(centers, reference.data[f"points/l{level}"])


def test_boxes_are_the_distances_of_inference_around_the_points(reference: Reference):
    dense = reference.run()
    for level, boxes in enumerate(dense.boxes):
        distances = reference.data[f"head_eval/reg/l{level}"].flatten(2).transpose(1, 2)
        points = reference.data[f"points/l{level}"]
        expected = torch.cat((points - distances[..., :2], points + distances[..., 2:]), dim=2)
        assert_close(boxes, expected, FEATURE_NOISE, f"level {level}")


@pytest.mark.parametrize("case", ["a", "b"])
def test_assignment_equals_the_reference(reference: Reference, case: str):
    dense = reference.run()
    targets = reference.targets(dense, case)
    foreground = targets.foreground
    assert foreground.any()
    assert torch.equal(targets.labels, reference.per_level(f"{case}/labels"))

    index = [reference.data[f"{case}/assigned_gt/l{level}"] for level in range(5)]
    for image, matched in enumerate(torch.cat(index, dim=1)):
        assert torch.equal(matched >= 0, foreground[image])
        boxes = reference.data[f"{case}/img{image}/gt_bboxes"][matched[matched >= 0]]
        assert torch.equal(targets.boxes[image, foreground[image]], boxes)

    priors = torch.cat(dense.priors)
    distances = reference.model.box2box_transform.get_deltas(priors, targets.boxes)
    expected = reference.per_level(f"{case}/bbox_targets", 4)
    assert_close(distances[foreground], expected[foreground], TARGET_NOISE)


@pytest.mark.parametrize("case", ["a", "b"])
def test_losses_equal_the_reference(reference: Reference, case: str):
    dense = reference.run()
    losses = reference.model.losses(dense, reference.targets(dense, case))
    names = {"cls": "loss_cls", "loc": "loss_bbox", "ctr": "loss_centerness"}
    assert len(losses) == 3
    for ours, theirs in names.items():
        loss, expected = losses[f"loss_fcos_{ours}"], reference.data[f"{case}/loss/{theirs}"]
        assert expected > 0
        assert_close(loss, expected, LOSS_NOISE, theirs)
    assert_close(sum(losses.values()), reference.data[f"{case}/loss_total"], LOSS_NOISE)


@pytest.mark.parametrize("case", ["a", "b"])
def test_gradients_equal_the_reference(reference: Reference, case: str):
    assert_equal_gradients(reference, case, {"a": 7, "b": 1}[case])


def test_detections_equal_the_reference(reference: Reference):
    assert_equal_detections(reference, (100, 100))


@torch.no_grad()
def test_clipping_after_nms_as_detectron2_does_changes_the_detections(reference: Reference):
    model = reference.model.eval()
    before = model.inference(reference.run())
    model.clip_before_nms = False
    after = model.inference(reference.run())
    for a, b in zip(before, after):
        a.pred_boxes.clip(a.image_size), b.pred_boxes.clip(b.image_size)
        assert not torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
