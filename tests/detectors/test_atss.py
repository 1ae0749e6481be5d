"""The targets, losses, scores and options of ATSS, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from fvcore.nn import sigmoid_focal_loss
from torchvision.ops import box_iou, generalized_box_iou

from dense_kd.detectors import ATSS, ATSSHead, TowerHead
from dense_kd.outputs import DensePass, Targets
from helpers.builders import (
    CASES,
    NUM_CLASSES,
    assert_close,
    batch,
    instances,
    tiny_atss,
    tiny_gfl,
)

QUALITIES = pytest.mark.parametrize("quality", ["centerness", "iou"])
BRANCH = {"centerness": "ctrness", "iou": "iou_pred"}


def build(quality: str, **options) -> ATSS:
    return tiny_atss(head={"quality": quality}, **options)


def pass_and_targets(model: ATSS, inputs: list[dict]) -> tuple[DensePass, Targets]:
    dense = model.run(model.preprocess_image(inputs))
    return dense, model.targets(dense, model.ground_truth(inputs))


@QUALITIES
def test_losses_are_the_formulas_of_the_quality_branch(quality: str):
    model = build(quality, focal_loss_alpha=0.4, focal_loss_gamma=1.5, box_loss_weight=3.0)
    dense, targets = pass_and_targets(model, batch("usual"))
    losses = model.losses(dense, targets)
    assert list(losses) == ["loss_cls", "loss_box_reg", f"loss_{quality}"]

    foreground, valid = targets.foreground, targets.valid
    positives = foreground.sum().item()
    assert positives > 5 and not valid.all()
    one_hot = F.one_hot(targets.labels.clamp(min=0), NUM_CLASSES + 1)[..., :-1].float()
    focal = sigmoid_focal_loss(torch.cat(dense.logits, 1), one_hot, alpha=0.4, gamma=1.5)
    boxes, truth = torch.cat(dense.boxes, 1)[foreground], targets.boxes[foreground]
    giou_loss = 1 - generalized_box_iou(boxes, truth).diagonal()
    if quality == "centerness":
        centers = torch.cat(dense.priors).view(1, -1, 2, 2).mean(2).expand(2, -1, 2)[foreground]
        low, high = centers - truth[:, :2], truth[:, 2:] - centers
        target = (torch.minimum(low, high) / torch.maximum(low, high)).prod(1).sqrt()
        loss_box = (giou_loss * target).sum() / max(target.sum().item(), 1)
    else:
        target = box_iou(boxes, truth).diagonal().detach()
        loss_box = giou_loss.sum() / positives
    predicted = torch.cat(dense.quality, dim=1)[foreground].sigmoid()
    loss_quality = F.binary_cross_entropy(predicted, target, reduction="sum") / positives
    assert_close(losses["loss_cls"], focal[valid].sum() / positives, what="class loss")
    assert_close(losses["loss_box_reg"], 3 * loss_box, what="box loss")
    assert_close(losses[f"loss_{quality}"], loss_quality, what="quality loss")
    assert (targets.quality[~foreground] == 0).all() and not targets.quality.requires_grad


@QUALITIES
def test_the_quality_loss_gives_no_gradient_to_the_box_convolution(quality: str):
    model = build(quality)
    dense, targets = pass_and_targets(model, batch("usual"))
    loss = model.losses(dense, targets)[f"loss_{quality}"]
    found = torch.autograd.grad(loss, list(model.head.parameters()), allow_unused=True)
    reached = {n for (n, _), g in zip(model.head.named_parameters(), found) if g is not None}
    assert {f"{BRANCH[quality]}.weight", "bbox_subnet.0.weight"} <= reached
    assert not {"bbox_pred.weight", "scales.0.scale", "cls_score.weight"} & reached


def test_box_weights_below_one_in_sum_are_divided_by_one():
    model = build("centerness")
    inputs = batch("usual")
    for image in inputs:  # one positive each, near a side of its box: the weights sum up to 0.16
        image["instances"] = instances(image["image"].shape[1:], [[7.9, 7.9, 16, 16]], [0])
    dense, targets = pass_and_targets(model, inputs)
    weight = targets.quality[targets.foreground]
    assert 0 < weight.sum() < 1
    boxes = model.matched_boxes(dense, targets)
    giou = generalized_box_iou(boxes, targets.boxes[targets.foreground]).diagonal()
    expected = 2 * (weight * (1 - giou)).sum()
    assert_close(model.losses(dense, targets)["loss_box_reg"], expected)


@pytest.mark.parametrize("make", [tiny_atss, tiny_gfl])
def test_an_image_without_positives_counts_as_one_in_the_normalizer(make):
    for case in CASES:
        model = make()
        _, targets = pass_and_targets(model, batch(case))
        counts = targets.foreground.sum(dim=1).tolist()
        assert [count == 0 for count in counts] == [case == "all empty", case != "usual"]
        assert targets.normalizer == sum(max(count, 1) for count in counts)


@QUALITIES
def test_losses_without_positives_keep_the_graph(quality: str):
    model = build(quality)
    losses = model(batch("all empty"))
    assert losses["loss_box_reg"] == 0 == losses[f"loss_{quality}"] and losses["loss_cls"] > 0
    sum(losses.values()).backward()
    for name, parameter in model.head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert model.head.bbox_pred.weight.grad.abs().max() == 0


def test_predictions_in_the_padding_change_no_loss():
    model = build("centerness")
    dense, targets = pass_and_targets(model, batch("usual"))
    expected = model.losses(dense, targets)
    outside = targets.labels == -1
    assert outside.any(dim=1).tolist() == [True, False]  # 64 x 96 and 80 x 72 make 80 x 96
    for maps in (dense.logits, dense.quality):
        for level, mask in zip(maps, outside.split(dense.num_predictions, dim=1)):
            level.data[mask] += 3.0
    losses = model.losses(dense, targets)
    assert all(torch.equal(losses[name], expected[name]) for name in expected)


@QUALITIES
def test_the_quality_multiplies_scores_after_they_are_selected(quality: str):
    model = build(quality, test_score_thresh=0.2)
    dense = model.run(model.preprocess_image(batch("usual")[:1]))
    for maps in (dense.logits, dense.quality):
        for tensor in maps:
            tensor.data.fill_(-20.0)
    for index, logit in ((0, -4.0), (64, 2.0)):
        dense.logits[0].data[0, index, 1] = 0.0
        dense.quality[0].data[0, index] = logit
        dense.deltas[0].data[0, index] = 0.0
    found = model.inference(dense)[0]
    expected = [0.5 / (1 + math.exp(-2)), 0.5 / (1 + math.exp(4))]
    assert found.scores.tolist() == pytest.approx(expected)  # the second is below the threshold
    # Index 64 is row 5 and column 4 of 12: a square of 64 around (32, 40), clipped to 64 x 96.
    assert found.pred_boxes.tensor.tolist() == [[0, 8, 64, 64], [0, 0, 32, 32]]


@QUALITIES
def test_the_quality_branch_is_on_the_box_tower(quality: str):
    head = build(quality).head
    names = {name for name in head.state_dict() if "subnet" not in name}
    parts = {
        f"{n}.{p}" for n in ("cls_score", "bbox_pred", BRANCH[quality]) for p in ("weight", "bias")
    }
    assert names == parts | {f"scales.{level}.scale" for level in range(3)}
    assert "cls_subnet.0.bias" not in head.state_dict()  # a norm follows
    features = [torch.randn(1, 16, 4, 4) for _ in range(3)]
    outputs, taps = head.run(features, [("bbox", 2)])
    branch = getattr(head, BRANCH[quality])
    assert torch.equal(outputs.quality[0], branch(taps["bbox", 2][0]))
    assert head.quality_kind == quality


def test_a_fresh_head_scores_every_class_at_its_prior():
    head = ATSSHead(
        input_shape=[ShapeSpec(channels=16)] * 3,
        num_classes=NUM_CLASSES,
        conv_dims=[32],
        prior_prob=0.02,
    )
    assert head.cls_score.bias.sigmoid().tolist() == pytest.approx([0.02] * NUM_CLASSES)
    assert [scale.scale.item() for scale in head.scales] == [1.0] * 3
    assert head.cls_subnet[1].num_groups == 32


def test_a_head_without_a_quality_branch_is_refused():
    model = tiny_atss()
    shapes = [ShapeSpec(channels=16)] * 3
    head = TowerHead(input_shape=shapes, num_classes=NUM_CLASSES, num_anchors=1, conv_dims=[16])
    with pytest.raises(ValueError, match="quality branch None: expected one of .*centerness"):
        ATSS(
            backbone=model.backbone,
            head=head,
            num_classes=NUM_CLASSES,
            pixel_mean=[0.0] * 3,
            pixel_std=[1.0] * 3,
        )


def test_an_unknown_quality_is_refused():
    with pytest.raises(ValueError, match="quality='score': expected one of"):
        build("score")
