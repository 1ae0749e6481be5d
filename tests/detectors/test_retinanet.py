"""Our RetinaNet against detectron2's own, made of the same LazyConfig with the same parameters."""

from __future__ import annotations

import inspect

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import box_regression, build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes
from torch import Tensor, nn
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss

from dense_kd.detectors import RetinaNet, TowerHead, from_detectron2
from dense_kd.outputs import Targets
from helpers.builders import (
    CASES,
    NUM_CLASSES,
    assert_close,
    batch,
    group_norm_8,
    randomized,
    retinanet_config,
    tiny_retinanet,
)
from helpers.comparison import assert_equal_detections, assert_equal_training

STOCK_HAS_DIOU = "diou" in inspect.getsource(box_regression._dense_box_regression_loss)
needs_stock_diou = pytest.mark.skipif(
    not STOCK_HAS_DIOU, reason="detectron2 0.5 has no DIoU and CIoU loss"
)
BOX_LOSS_OPTIONS = [
    pytest.param({"box_reg_loss_type": "smooth_l1", "smooth_l1_beta": 0.0}, id="l1"),
    pytest.param({"box_reg_loss_type": "smooth_l1", "smooth_l1_beta": 0.1}, id="smooth_l1"),
    pytest.param({"box_reg_loss_type": "giou"}, id="giou"),
    pytest.param({"box_reg_loss_type": "diou"}, id="diou", marks=needs_stock_diou),
    pytest.param({"box_reg_loss_type": "ciou"}, id="ciou", marks=needs_stock_diou),
]


def make_pair(**options) -> tuple[RetinaNet, nn.Module]:
    """Ours and detectron2's with equal parameters, loaded strictly in both directions."""
    config = retinanet_config(**options)
    ours, stock = instantiate(from_detectron2(config)), randomized(instantiate(config), seed=3)
    ours.load_state_dict(stock.state_dict(), strict=True)
    randomized(stock, seed=4).load_state_dict(ours.state_dict(), strict=True)
    return ours, stock


@pytest.mark.parametrize("options", BOX_LOSS_OPTIONS)
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_equal_detectron2s_over_three_steps(case: str, options: dict):
    ours, stock = make_pair(**options)
    assert_equal_training(ours, stock, [batch("usual"), batch(case, seed=1), batch(case, seed=2)])


@pytest.mark.parametrize("norm", ["", group_norm_8, "BN"], ids=["none", "GN", "BN"])
def test_training_equals_detectron2s_with_every_norm_on_five_levels(norm):
    ours, stock = make_pair(num_levels=5, norm=norm)
    batches = [batch("usual"), batch("one empty"), batch("all empty")]
    # Training statistics of the smallest maps amplify rounding.
    assert_equal_training(ours, stock, batches, tolerance=1e-4 if norm == "BN" else 1e-5)
    assert min(assert_equal_detections(ours, stock, batch("usual", seed=5))) > 0


def test_training_equals_detectron2s_with_group_norm_by_name():
    ours, stock = make_pair(channels=32, norm="GN")
    assert_equal_training(ours, stock, [batch("usual"), batch("one empty"), batch("usual", seed=1)])


def test_training_equals_detectron2s_with_other_loss_and_coder_options():
    ours, stock = make_pair(
        focal_loss_alpha=0.6,
        focal_loss_gamma=1.5,
        smooth_l1_beta=0.2,
        box2box_transform=Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
        anchor_matcher=Matcher([0.3, 0.6], [0, -1, 1], allow_low_quality_matches=False),
        pixel_mean=[1.0, 2.0, 3.0],
        pixel_std=[50.0, 60.0, 70.0],
    )
    assert_equal_training(ours, stock, [batch("usual", seed=seed) for seed in range(3)])
    assert min(assert_equal_detections(ours, stock, batch("usual"))) > 0


def test_training_equals_detectron2s_on_a_part_of_the_pyramid():
    ours, stock = make_pair(num_levels=5, head_in_features=["p4", "p6"])
    assert ours.strides == [16, 64]
    assert_equal_training(ours, stock, [batch("usual"), batch("one empty")])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"test_score_thresh": 0.2, "test_nms_thresh": 0.3},
        {"test_topk_candidates": 7},
        {"max_detections_per_image": 5},
        {"test_score_thresh": 1.0},
    ],
    ids=lambda options: ", ".join(options) or "defaults",
)
def test_detections_equal_detectron2s(options: dict):
    ours, stock = make_pair(**options)
    counts = assert_equal_detections(ours, stock, batch("usual"))
    if "test_score_thresh" in options and options["test_score_thresh"] == 1.0:
        assert counts == [0, 0]
    elif "max_detections_per_image" in options:
        assert counts == [5, 5]
    else:
        assert min(counts) > 0


def test_detections_without_an_output_size_are_in_the_pixels_of_the_image():
    ours, stock = make_pair()
    inputs = [{"image": x["image"]} for x in batch("usual")]
    assert min(assert_equal_detections(ours, stock, inputs)) > 0
    assert ours(inputs)[0]["instances"].image_size == (64, 96)


def test_images_are_padded_as_detectron2_pads_them():
    ours, stock = make_pair(num_levels=5)
    images, expected = (m.preprocess_image(batch("usual")) for m in (ours, stock))
    assert images.image_sizes == expected.image_sizes == [(64, 96), (80, 72)]
    assert images.tensor.shape == (2, 3, 96, 96)  # to a multiple of 32
    assert torch.equal(images.tensor, expected.tensor)


def test_predictions_are_ordered_by_level_row_column_anchor():
    model = tiny_retinanet()
    images = model.preprocess_image(batch("usual"))
    dense = model.run(images)
    outputs, _ = model.head.run(dense.features)
    level, row, column, anchor = 1, 2, 3, 4
    width = dense.features[level].shape[-1]
    index = (row * width + column) * model.num_anchors + anchor
    logits = outputs.logits[level].view(2, 6, NUM_CLASSES, *dense.features[level].shape[-2:])
    assert torch.equal(dense.logits[level][:, index], logits[:, anchor, :, row, column])
    deltas = outputs.deltas[level].view(2, 6, 4, *dense.features[level].shape[-2:])
    assert torch.equal(dense.deltas[level][:, index], deltas[:, anchor, :, row, column])
    cell = list(model.anchor_generator.cell_anchors)[level][anchor]
    expected = cell + 16 * torch.tensor([column, row, column, row])
    assert torch.equal(dense.priors[level][index], expected)


def test_labels_and_boxes_equal_detectron2s():
    ours, stock = make_pair()
    inputs = batch("one empty")
    dense = ours.run(ours.preprocess_image(inputs))
    targets = ours.targets(dense, ours.ground_truth(inputs))
    truth = [x["instances"] for x in inputs]
    labels, boxes = stock.label_anchors([Boxes(x) for x in dense.priors], truth)
    assert torch.equal(targets.labels, torch.stack(labels))
    assert torch.equal(targets.boxes, torch.stack(boxes))
    assert targets.foreground.any() and (targets.labels == -1).any()
    assert (targets.labels[1] == NUM_CLASSES).all()


@pytest.mark.parametrize(
    ("kind", "reference"), [("diou", distance_box_iou_loss), ("ciou", complete_box_iou_loss)]
)
def test_diou_and_ciou_equal_torchvisions_on_the_decoded_boxes(kind: str, reference):
    model = tiny_retinanet(box_reg_loss_type=kind)
    inputs = batch("usual")
    dense = model.run(model.preprocess_image(inputs))
    targets = model.targets(dense, model.ground_truth(inputs))
    loss = model.losses(dense, targets)["loss_box_reg"]
    boxes = torch.cat(dense.boxes, dim=1)[targets.foreground]
    expected = reference(boxes, targets.boxes[targets.foreground], reduction="sum")
    assert_close(loss, expected / targets.normalizer)


def test_loss_normalizer_is_a_buffer_outside_of_the_state_dict():
    model = tiny_retinanet()
    assert isinstance(model.loss_normalizer, Tensor)
    assert model.loss_normalizer.dtype == torch.float32 and model.loss_normalizer.shape == ()
    assert "loss_normalizer" in dict(model.named_buffers())
    assert "loss_normalizer" not in model.state_dict()
    assert model.training_buffers == ("loss_normalizer",)
    assert model.double().loss_normalizer.dtype == torch.float64
    assert model.to("meta").loss_normalizer.device.type == "meta"


def targets_of(model: RetinaNet, case: str = "usual") -> Targets:
    inputs = batch(case)
    return model.targets(model.run(model.preprocess_image(inputs)), model.ground_truth(inputs))


def test_loss_normalizer_moves_in_training_mode_only():
    model = tiny_retinanet().eval()
    assert targets_of(model).normalizer == 100 == model.loss_normalizer
    model.train()
    targets = targets_of(model)
    positives = int(targets.foreground.sum())
    assert positives > 1
    assert targets.normalizer.item() == pytest.approx(90 + 0.1 * positives)
    assert model.loss_normalizer == targets.normalizer


def test_a_batch_without_positives_counts_as_one_for_the_normalizer():
    model = tiny_retinanet()
    assert targets_of(model, "all empty").normalizer.item() == pytest.approx(90.1)


def test_the_next_step_leaves_the_normalizer_of_earlier_targets_alone():
    model = tiny_retinanet()
    targets = targets_of(model)
    before = targets.normalizer.item()
    targets_of(model)
    assert targets.normalizer.item() == before != model.loss_normalizer.item()


def test_momentum_zero_divides_by_the_positives_of_the_batch():
    model = tiny_retinanet(loss_normalizer_momentum=0.0)
    targets = targets_of(model)
    assert targets.normalizer == targets.foreground.sum()


def test_an_unknown_box_loss_is_refused():
    with pytest.raises(ValueError, match="box_reg_loss_type='l2'.*smooth_l1"):
        tiny_retinanet(box_reg_loss_type="l2")


@pytest.mark.slow
def test_a_yacs_config_builds_the_model_that_detectron2_builds():
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[x, x * 1.26, x * 1.59] for x in (32, 64, 128, 256, 512)]
    cfg.MODEL.RETINANET.NUM_CLASSES = NUM_CLASSES
    cfg.MODEL.RETINANET.NUM_CONVS = 2
    cfg.MODEL.RETINANET.NORM = "GN"
    cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE = "giou"
    cfg.MODEL.RETINANET.FOCAL_LOSS_ALPHA = 0.3
    ours = RetinaNet(**RetinaNet.from_config(cfg))
    stock = randomized(build_model(cfg))
    assert type(ours.head) is TowerHead
    ours.load_state_dict(stock.state_dict(), strict=True)
    assert min(assert_equal_detections(ours, stock, batch("usual"))) > 0
    assert_equal_training(ours, stock, [batch("usual")])
