"""RetinaNet with mmdetection's options against values of mmdetection's, from the features of the
pyramid on: see golden/README.md."""

from __future__ import annotations

import functools

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from torch import Tensor

from dense_kd import get_config_file
from dense_kd.checkpoint import convert_mmdet
from dense_kd.detectors import DeltaCoder
from dense_kd.losses import elementwise_iou
from helpers.builders import GOLDEN, assert_close, golden, golden_config
from helpers.gradients import assert_gradients_close
from helpers.mmdet_reference import (
    FEATURE_NOISE,
    GRADIENT_NOISE,
    LEVELS,
    LOSS_NOISE,
    Reference,
    StoredFeatures,
    assert_equal_detections,
    assert_equal_taps,
    feature_gradients,
    head_arguments,
    resume_from_reference,
)

# Ten times what was measured: 0 (of one rounding, 1e-7, here) and 1.9e-7 twice.
ANCHOR_NOISE, OVERLAP_NOISE, DELTA_NOISE = 1e-6, 2e-6, 2e-6
CASES = pytest.mark.parametrize("case", ["a", "b"])


def size_major(x: Tensor, dim: int, size: int = 1) -> Tensor:
    """The (A, ``size``) of dimension ``dim`` from mmdetection's order to detectron2's."""
    split = x.unflatten(dim, (-1, 3, 3, size))  # rows of (ratio, scale, size)
    return split.transpose(dim + 1, dim + 2).flatten(dim, dim + 3)


@pytest.fixture
def reference() -> Reference:
    """The model of our config, with smaller towers."""
    data = golden("det_retinanet_data")
    features = {f"p{level[1]}": data[f"fpn/{level}"].clone() for level in LEVELS}
    make = LazyConfig.load(get_config_file("common/models/retinanet.py"), "mmdet_retinanet")
    config = make(L(StoredFeatures)(features=features))
    arguments = head_arguments("det_retinanet")
    config.num_classes = arguments["num_classes"]
    config.head.update(input_shape=arguments["input_shape"], conv_dims=arguments["conv_dims"])
    model = instantiate(config)
    model.backbone.features = features  # a config copies tensors
    checkpoint = torch.load(GOLDEN / "det_retinanet.pth", weights_only=True)
    weights = checkpoint["state_dict"]
    head = convert_mmdet({k: v for k, v in weights.items() if k.startswith("bbox_head.")})
    model.head.load_state_dict({k[len("head.") :]: v for k, v in head.items()}, strict=True)
    return Reference("det_retinanet", data, golden_config("det_retinanet", "model_cfg"), model)


def ordered(reference: Reference, key: str, *shape: int) -> Tensor:
    """The arrays ``key/l0``..``key/l4`` as (N, R, ...), anchors in our order."""
    return size_major(reference.per_level(key, *shape), 1)


def test_options_are_those_of_the_reference(reference: Reference):
    test, head = reference.meta["test_cfg"], reference.meta["bbox_head"]
    assigner = reference.meta["train_cfg"]["assigner"]
    model = reference.model
    assert model.test_score_thresh == test["score_thr"]
    assert model.test_nms_thresh == test["nms"]["iou_threshold"]
    assert model.test_topk_candidates == test["nms_pre"]
    assert model.max_detections_per_image == test["max_per_img"]
    assert model.strides == head["anchor_generator"]["strides"]
    assert model.assigner.matcher.thresholds[1:-1] == [
        assigner["neg_iou_thr"],
        assigner["pos_iou_thr"],
    ]
    assert model.assigner.matcher.allow_low_quality_matches and assigner["min_pos_iou"] == 0
    stds = head["bbox_coder"]["target_stds"]
    assert list(model.box2box_transform.weights) == [1 / std for std in stds]
    assert model.focal_loss_alpha == head["loss_cls"]["alpha"]
    assert model.focal_loss_gamma == head["loss_cls"]["gamma"]
    assert head["loss_bbox"] == {"type": "L1Loss", "loss_weight": 1.0}
    assert model.box_reg_loss_type == "smooth_l1" and model.smooth_l1_beta == 0
    assert type(model.box2box_transform) is DeltaCoder
    assert model.input_format == "RGB"


def test_head_outputs_equal_the_reference(reference: Reference):
    outputs, _ = reference.model.head.run(list(reference.features.values()))
    classes = reference.model.num_classes
    for kind, levels, size in (("cls", outputs.logits, classes), ("reg", outputs.deltas, 4)):
        for level, found in enumerate(levels):
            expected = size_major(reference.data[f"head/{kind}/l{level}"], 1, size)
            assert_close(found, expected, FEATURE_NOISE, f"{kind}, level {level}")


def test_taps_equal_the_features_of_the_reference_towers(reference: Reference):
    assert_equal_taps(reference)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_resuming_from_the_reference_features_gives_the_reference_outputs(
    reference: Reference, depth: int
):
    outputs = resume_from_reference(reference, depth)
    expected = {
        kind: size_major(reference.data[f"head/{kind}/l1"], 1, size)
        for kind, size in (("cls", reference.model.num_classes), ("reg", 4))
    }
    assert_close(outputs.logits[1], expected["cls"], FEATURE_NOISE, "class")
    assert_close(outputs.deltas[1], expected["reg"], FEATURE_NOISE, "box")


def test_anchors_equal_the_reference(reference: Reference):
    for level, priors in enumerate(reference.run().priors):
        expected = size_major(reference.data[f"anchors/l{level}"], 0)
        assert_close(priors, expected, ANCHOR_NOISE, f"level {level}")  # other roundings


@CASES
def test_assignment_equals_the_reference(reference: Reference, case: str):
    dense = reference.run()
    targets = reference.targets(dense, case)
    weights = ordered(reference, f"{case}/label_weights")
    expected = ordered(reference, f"{case}/labels").masked_fill(weights == 0, -1)
    assert targets.foreground.any()
    assert torch.equal(targets.labels, expected)
    assert torch.equal(targets.valid, weights > 0)
    box_weights = ordered(reference, f"{case}/bbox_weights", 4)
    assert torch.equal(box_weights, targets.foreground[..., None].expand_as(box_weights).float())
    assert targets.normalizer == reference.data[f"{case}/avg_factor"]
    for image in range(2):
        matched = size_major(reference.data[f"{case}/img{image}/gt_inds"], 0)
        inside = size_major(reference.data[f"{case}/img{image}/valid_flags"], 0)
        foreground = targets.foreground[image]
        assert torch.equal(~inside, matched == -2)
        assert torch.equal(targets.valid[image], matched >= 0)
        assert torch.equal(foreground, matched > 0)
        gt_boxes = reference.data[f"{case}/img{image}/gt_bboxes"]
        assert torch.equal(targets.boxes[image, foreground], gt_boxes[matched[matched > 0] - 1])
        overlaps = size_major(reference.data[f"{case}/img{image}/max_overlaps"], 0)[inside]
        found = torch.zeros_like(overlaps)
        if len(gt_boxes):
            anchors = torch.cat(dense.priors)[inside]
            found = elementwise_iou(anchors, gt_boxes[:, None]).amax(dim=0)
        assert_close(found, overlaps, OVERLAP_NOISE, "overlaps")
    priors = torch.cat(dense.priors).expand_as(targets.boxes)[targets.foreground]
    deltas = reference.model.box2box_transform.get_deltas(priors, targets.boxes[targets.foreground])
    of_reference = ordered(reference, f"{case}/bbox_targets", 4)[targets.foreground]
    assert_close(deltas, of_reference, DELTA_NOISE, "deltas")


def test_the_cases_hold_what_the_options_are_for(reference: Reference):
    dense = reference.run()
    expected = {case: reference.targets(dense, case) for case in "ab"}
    matched = torch.stack([reference.data[f"a/img{image}/gt_inds"] for image in range(2)])
    assert (matched == -2).any() and (matched == -1).any()
    reference.model.assigner.padding_multiple = None
    assert not torch.equal(reference.targets(dense, "a").labels, expected["a"].labels)
    # Low-quality matches: the best anchors of a box, each of the same overlap with it.
    for case, count in (("a", 4), ("b", 5)):
        overlaps = reference.data[f"{case}/img0/max_overlaps"]
        positive = reference.data[f"{case}/img0/gt_inds"] > 0
        assert (positive & (overlaps < 0.4)).sum() == count
    reference.model.count_empty_images = False
    assert reference.targets(dense, "b").normalizer != expected["b"].normalizer


@CASES
def test_losses_equal_the_reference(reference: Reference, case: str):
    dense = reference.run()
    losses = reference.model.losses(dense, reference.targets(dense, case))
    names = {"loss_cls": "loss_cls", "loss_box_reg": "loss_bbox"}
    assert list(losses) == list(names)
    for ours, theirs in names.items():
        expected = reference.data[f"{case}/loss/{theirs}"].sum()
        assert expected > 0
        assert_close(losses[ours], expected, LOSS_NOISE, theirs)
    assert_close(sum(losses.values()), reference.data[f"{case}/loss_total"], LOSS_NOISE)


@CASES
def test_gradients_equal_the_reference(reference: Reference, case: str):
    prefix = f"{case}/grad/"
    stored = {k[len(prefix) :]: v for k, v in reference.data.items() if k.startswith(prefix)}
    assert len(stored) == {"a": 6, "b": 1}[case]
    features = {key: value for key, value in stored.items() if key.startswith("fpn_")}
    head = {f"bbox_head.{key}": stored[key] for key in stored.keys() - features.keys()}
    head = {key[len("head.") :]: value for key, value in convert_mmdet(head).items()}
    assert_gradients_close(
        functools.partial(feature_gradients, reference, case), {**features, **head}, GRADIENT_NOISE
    )


def test_detections_equal_the_reference(reference: Reference):
    assert_equal_detections(reference, (100, 100))
