"""The template of all detectors: errors, logging, precision and decoding."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage

from dense_kd.detectors import RetinaNet, from_detectron2
from dense_kd.detectors.base.detections import best_candidates
from helpers.builders import (
    NUM_CLASSES,
    assert_close,
    batch,
    instances,
    retinanet_config,
    tiny_atss,
    tiny_autoassign,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)

BUILDERS = {
    "RetinaNet": tiny_retinanet,
    "FCOS": tiny_fcos,
    "ATSS": tiny_atss,
    "GFL": tiny_gfl,
    "AutoAssign": tiny_autoassign,
}
DETECTORS = pytest.mark.parametrize("build", BUILDERS.values(), ids=list(BUILDERS))


@DETECTORS
def test_training_without_instances_names_the_image(build):
    inputs = batch("usual")
    del inputs[1]["instances"]
    with pytest.raises(ValueError, match="image_1.jpg has no 'instances' in training"):
        build()(inputs)
    del inputs[1]["file_name"]
    with pytest.raises(ValueError, match="number 1 of the batch has no 'instances'"):
        build()(inputs)


def test_a_head_of_other_classes_is_refused():
    config = from_detectron2(retinanet_config())
    config.head.num_classes = 7
    with pytest.raises(ValueError, match="head.num_classes=7 and num_classes=4 differ"):
        instantiate(config)


def test_a_head_that_is_not_a_tower_head_is_refused():
    config = retinanet_config()
    config._target_ = RetinaNet
    with pytest.raises(TypeError, match="RetinaNetHead, expected a dense_kd TowerHead.*from_det"):
        instantiate(config)


def test_a_head_for_other_levels_is_refused():
    config = from_detectron2(retinanet_config())
    config.head_in_features = ["p3", "p4"]
    with pytest.raises(ValueError, match=r"built for 3 levels and gets \['p3', 'p4'\]"):
        instantiate(config)


def test_the_levels_are_all_maps_of_the_backbone_by_default_finest_first():
    model = tiny_fcos(num_levels=5)
    assert model.head_in_features == ["p3", "p4", "p5", "p6", "p7"]
    assert model.strides == [8, 16, 32, 64, 128]


@DETECTORS
def test_an_image_is_logged_every_vis_period_iterations(build):
    model = build(vis_period=2)
    logged = []
    for iteration in range(3):
        with EventStorage(iteration) as storage:
            model(batch("usual"))
            logged.append([(name, image.shape) for name, image, _ in storage._vis_data])
    assert logged[1] == [] and len(logged[0]) == len(logged[2]) == 1
    name, shape = logged[0][0]
    assert "ground truth" in name
    assert shape == (3, 128, 96)  # truth above detections


@DETECTORS
def test_logging_an_image_leaves_losses_and_gradients_alone(build):
    results = []
    for vis_period in (0, 1):
        model = build(vis_period=vis_period)
        with EventStorage(0):
            losses = model(batch("usual"))
        sum(losses.values()).backward()
        losses["normalizer"] = model.loss_normalizer
        results.append((losses, [p.grad for p in model.head.parameters()]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1]))


@DETECTORS
def test_the_positives_of_an_image_are_logged(build):
    model = build()
    with EventStorage() as storage:
        dense = model.run(model.preprocess_image(batch("one empty")))
        targets = model.targets(dense, model.ground_truth(batch("one empty")))
    assert targets.foreground.any()
    assert storage.latest()["num_pos_anchors"][0] == targets.foreground.sum().item() / 2


@DETECTORS
def test_the_model_trains_without_an_event_storage(build):
    assert all(loss.isfinite() for loss in build(vis_period=1)(batch("usual")).values())


@DETECTORS
def test_under_autocast_the_pass_is_float32_and_losses_are_near_float32s(build):
    expected = build()(batch("usual"))
    model = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inputs = batch("usual")
        dense = model.run(model.preprocess_image(inputs))
        assert dense.features[0].dtype == torch.bfloat16  # autocast is at work
        losses = model.losses(dense, model.targets(dense, model.ground_truth(inputs)))
        maps = [*dense.logits, *dense.deltas, *dense.boxes]
        maps += [*(dense.quality or []), *(dense.distribution or [])]
        assert all(m.dtype == torch.float32 for m in maps)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert_close(loss, expected[name], 0.02, name)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.head.parameters())


@DETECTORS
def test_boxes_are_decoded_when_first_asked_for(build):
    model = build()
    dense = model.run(model.preprocess_image(batch("usual")))
    calls = []
    decode, dense.decode = dense.decode, lambda *args: calls.append(1) or decode(*args)
    assert calls == [] and "boxes" not in vars(dense)
    boxes = dense.boxes
    assert len(calls) == 1 and dense.boxes is boxes and len(calls) == 1
    anchors = model.num_anchors
    assert dense.num_predictions == [144 * anchors, 36 * anchors, 9 * anchors]
    assert [b.shape for b in boxes] == [(2, r, 4) for r in dense.num_predictions]
    for level, level_boxes in enumerate(boxes):
        for image in range(2):
            expected = model.box2box_transform.apply_deltas(
                dense.deltas[level][image], dense.priors[level]
            )
            assert_close(level_boxes[image], expected, 1e-6)


@DETECTORS
def test_a_pass_says_what_it_holds(build):
    model = build()
    dense = model.run(model.preprocess_image(batch("usual")), [("cls", 1)])
    assert dense.num_classes == NUM_CLASSES and dense.num_anchors == model.num_anchors
    assert dense.strides == [8, 16, 32]
    assert dense.image_sizes == [(64, 96), (80, 72)]
    assert [x.shape for x in dense.logits] == [(2, r, 4) for r in dense.num_predictions]
    assert [x.shape for x in dense.deltas] == [(2, r, 4) for r in dense.num_predictions]
    assert [x.shape for x in dense.priors] == [(r, 4) for r in dense.num_predictions]
    assert list(dense.taps) == [("cls", 1)]
    assert (dense.distribution is not None) == model.predicts_distribution == (build is tiny_gfl)
    if dense.distribution is not None:
        assert [x.shape for x in dense.distribution] == [
            (2, r, 4, 17) for r in dense.num_predictions
        ]
    kinds = {tiny_fcos: "centerness", tiny_atss: "centerness", tiny_autoassign: "objectness"}
    if build in kinds:
        assert dense.quality_kind == kinds[build]
        assert [x.shape for x in dense.quality] == [(2, r) for r in dense.num_predictions]
    else:
        assert dense.quality is None and dense.quality_kind is None


@DETECTORS
def test_a_pass_can_be_made_of_resumed_predictions(build):
    model = build()
    dense = model.run(model.preprocess_image(batch("usual")), [("cls", 1), ("bbox", 1)])
    taps = {branch: dense.taps[branch, 1] for branch in ("cls", "bbox")}
    resumed = model.dense_pass(dense.features, model.head.resume(taps, 1), dense.image_sizes)
    assert all(torch.equal(a, b) for a, b in zip(resumed.logits, dense.logits))
    assert all(torch.equal(a, b) for a, b in zip(resumed.boxes, dense.boxes))


@DETECTORS
def test_targets_know_which_levels_have_positives(build):
    model = build()
    inputs = batch("usual")
    for image in inputs:
        image["instances"] = instances(image["image"].shape[1:], [[8, 8, 24, 24]], [0])
    dense = model.run(model.preprocess_image(inputs))
    targets = model.targets(dense, model.ground_truth(inputs))
    has = targets.level_has_foreground(dense.num_predictions).split(dense.num_predictions)
    expected = targets.foreground.any(dim=0).split(dense.num_predictions)
    assert [x.all().item() for x in has] == [x.any().item() for x in has]
    assert [x[0].item() for x in has] == [x.any().item() for x in expected]
    assert has[0][0] and not has[2][0]


@DETECTORS
def test_the_batch_is_not_changed(build):
    model, inputs = build(), batch("usual")
    before = copy.deepcopy(inputs)
    model(inputs)
    model.eval()(inputs)
    for image, expected in zip(inputs, before):
        assert list(image) == list(expected)
        assert torch.equal(image["image"], expected["image"])
        truth, unchanged = image["instances"], expected["instances"]
        assert torch.equal(truth.gt_boxes.tensor, unchanged.gt_boxes.tensor)
        assert torch.equal(truth.gt_classes, unchanged.gt_classes)


def test_a_momentum_of_one_keeps_the_normalizer():
    model = tiny_fcos(loss_normalizer=50.0, loss_normalizer_momentum=1.0)
    model(batch())
    assert model.loss_normalizer == 50


@DETECTORS
def test_the_largest_codes_decode_to_finite_boxes(build):
    model, priors = build(), torch.tensor([[-40.0, -40.0, 40.0, 40.0]])
    for code in (3e38, -3e38):
        assert model.decode(torch.full((1, 4), code), priors).isfinite().all()


def test_a_score_of_the_threshold_is_no_candidate():
    scores = torch.tensor([[0.5, 0.75], [0.25, 0.5]])
    found = best_candidates(scores, threshold=0.5, topk=10)
    assert [x.tolist() for x in found] == [[0.75], [0], [1]]


@DETECTORS
def test_the_best_detections_of_an_image_are_kept(build):
    model = build(test_score_thresh=0.01).eval()
    dense = model.run(model.preprocess_image(batch()))
    everything = [found.scores for found in model.inference(dense)]
    model.max_detections_per_image = 3
    for scores, found in zip(everything, model.inference(dense)):
        assert len(scores) > 3 and found.scores.tolist() == scores[:3].tolist()
