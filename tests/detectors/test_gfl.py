"""The distributions, losses and options of GFL, against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou, generalized_box_iou

from dense_kd.detectors import GFL
from dense_kd.detectors.boxes.distributions import distribution_loss
from dense_kd.outputs import DensePass, Targets
from helpers.builders import NUM_CLASSES, assert_close, batch, instances, tiny_atss, tiny_gfl


def pass_and_targets(model: GFL, inputs: list[dict]) -> tuple[DensePass, Targets]:
    dense = model.run(model.preprocess_image(inputs))
    return dense, model.targets(dense, model.ground_truth(inputs))


def test_boxes_are_expected_distances_in_strides_from_the_centre_of_the_anchor():
    model = tiny_gfl(head={"reg_max": 4})
    features = [torch.zeros(1, 16, size, size) for size in (4, 2, 1)]
    outputs, _ = model.head.run(features)
    maps = outputs.distribution[1]  # stride 16
    assert maps.shape == (1, 4 * 5, 2, 2) and outputs.deltas == []
    maps.data.fill_(-50.0)
    # At row 0, column 1, whose centre is (16, 0): left 1, top 0, right 2.5, bottom 4 strides.
    for side, bins in enumerate([[1], [0], [2, 3], [4]]):
        for index in bins:
            maps.data[0, 5 * side + index, 0, 1] = 0.0
    dense = model.dense_pass(features, outputs, [(32, 32)])
    assert_close(dense.deltas[1][0, 1], torch.tensor([1, 0, 2.5, 4]), 1e-6)
    assert_close(dense.boxes[1][0, 1], torch.tensor([0.0, 0, 56, 64]), 1e-6)
    assert dense.distribution[1].shape == (1, 4, 4, 5)
    assert dense.distribution[1][0, 1, 2].tolist() == [-50, -50, 0, 0, -50]


@pytest.mark.parametrize(
    "lower", [0.0, 4.0], ids=["usual scores", "scores that sum to less than 1"]
)
def test_losses_are_the_formulas_of_the_paper(lower: float):
    model = tiny_gfl(quality_focal_loss_beta=1.5, box_loss_weight=3.0, distribution_loss_weight=0.5)
    model.head.cls_score.bias.data.sub_(lower)
    dense, targets = pass_and_targets(model, batch("usual"))
    losses = model.losses(dense, targets)
    assert list(losses) == ["loss_cls", "loss_box_reg", "loss_dfl"]

    foreground, valid = targets.foreground, targets.valid
    positives = foreground.sum().item()
    assert positives > 5 and not valid.all()
    logits, labels = torch.cat(dense.logits, dim=1), targets.labels
    boxes, truth = torch.cat(dense.boxes, dim=1)[foreground], targets.boxes[foreground]
    overlap = box_iou(boxes, truth).diagonal().detach()
    score = logits.sigmoid()
    expected = -(score**1.5) * (1 - score).log()  # equation 5 for y = 0
    s = score[foreground].gather(1, labels[foreground][:, None])[:, 0]
    of_class = -(overlap * s.log() + (1 - overlap) * (1 - s).log()) * (overlap - s).abs() ** 1.5
    other = F.one_hot(labels[foreground], NUM_CLASSES) == 0
    background = valid & ~foreground
    total = expected[background].sum() + expected[foreground][other].sum() + of_class.sum()
    assert_close(losses["loss_cls"], total / positives, what="class loss")

    weight = score[foreground].amax(dim=1).detach()
    divisor = max(weight.sum().item(), 1.0)
    assert (divisor == 1) == (lower > 0)
    giou_loss = 1 - generalized_box_iou(boxes, truth).diagonal()
    assert_close(losses["loss_box_reg"], 3 * (weight * giou_loss).sum() / divisor, what="box loss")

    dfl = []
    predictions = torch.cat(dense.distribution, dim=1)[foreground].softmax(dim=-1)
    priors = torch.cat(dense.priors).expand(2, -1, 4)[foreground]
    for p, prior, box in zip(predictions, priors.tolist(), truth.tolist()):
        stride = (prior[2] - prior[0]) / 8
        x, y = (prior[0] + prior[2]) / 2, (prior[1] + prior[3]) / 2
        sides = [(d / stride) for d in (x - box[0], y - box[1], box[2] - x, box[3] - y)]
        value = 0.0
        for side, y in enumerate(min(max(d, 0), 15.9) for d in sides):
            i = int(y)
            value -= (i + 1 - y) * p[side, i].log() + (y - i) * p[side, i + 1].log()  # equation 6
        dfl.append(value / 4)
    loss_dfl = 0.5 * (weight * torch.stack(dfl)).sum() / divisor
    assert_close(losses["loss_dfl"], loss_dfl, what="distribution loss")


def test_weights_and_soft_labels_carry_no_gradient():
    model = tiny_gfl()
    dense, targets = pass_and_targets(model, batch("usual"))
    losses = model.losses(dense, targets)
    parameters = (model.head.cls_score.weight, model.head.bbox_pred.weight)
    for name, of_class, of_box in (
        ("loss_cls", True, False),
        ("loss_box_reg", False, True),
        ("loss_dfl", False, True),
    ):
        found = torch.autograd.grad(losses[name], parameters, allow_unused=True, retain_graph=True)
        assert [g is not None for g in found] == [of_class, of_box], name


def test_distances_beyond_the_last_bin_are_clamped():
    model = tiny_gfl(head={"reg_max": 4})
    inputs = batch("usual")
    for image in inputs:
        image["instances"] = instances(image["image"].shape[1:], [[-500, -400, 600, 500]], [0])
    dense, targets = pass_and_targets(model, inputs)
    assert targets.foreground.any()
    logp = torch.cat(dense.distribution, 1)[targets.foreground].log_softmax(-1)
    expected = -(0.1 * logp[..., 3] + 0.9 * logp[..., 4]).mean(dim=1)
    found = distribution_loss(dense, targets, model.box2box_transform)
    assert_close(found, expected, 1e-5)


def test_losses_without_positives_keep_the_graph():
    model = tiny_gfl()
    losses = model(batch("all empty"))
    assert losses["loss_box_reg"] == 0 == losses["loss_dfl"] and losses["loss_cls"] > 0
    sum(losses.values()).backward()
    for name, parameter in model.head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert model.head.bbox_pred.weight.grad.abs().max() == 0


def test_under_autocast_the_expectation_is_taken_in_float32():
    model = tiny_gfl()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        dense = model.run(model.preprocess_image(batch("usual")))
    for deltas, distribution in zip(dense.deltas, dense.distribution):
        assert deltas.dtype == distribution.dtype == torch.float32
        expected = (distribution.softmax(-1) * torch.arange(17)).sum(-1)
        assert_close(deltas, expected, 1e-6)


def test_the_class_score_alone_is_the_score():
    model = tiny_gfl(test_score_thresh=0.3)
    dense = model.run(model.preprocess_image(batch("usual")[:1]))
    for logits in dense.logits:
        logits.data.fill_(-20.0)
    dense.logits[1].data[0, 3, 2] = 0.0
    found = model.inference(dense)[0]
    assert found.scores.tolist() == [0.5] and found.pred_classes.tolist() == [2]
    x1, y1, x2, y2 = dense.boxes[1][0, 3].tolist()
    expected = [max(x1, 0), max(y1, 0), min(x2, 96), min(y2, 64)]
    assert found.pred_boxes.tensor[0].tolist() == pytest.approx(expected)


def test_the_head_has_a_distribution_per_side_and_no_quality_branch():
    head = tiny_gfl(head={"reg_max": 7}).head
    assert head.bbox_pred.weight.shape == (32, 16, 3, 3)
    names = {name.partition(".")[0] for name in head.state_dict()}
    assert names == {"cls_subnet", "bbox_subnet", "cls_score", "bbox_pred", "scales"}
    assert head.quality_kind is None
    assert "cls_subnet.0.bias" not in head.state_dict()  # a norm follows
    maps = head([torch.randn(1, 16, 4, 4) for _ in range(3)])
    assert [levels[0].shape for levels in maps] == [(1, NUM_CLASSES, 4, 4), (1, 32, 4, 4)]


def test_a_head_without_distributions_is_refused():
    with pytest.raises(TypeError, match="head is a ATSSHead, expected a GFLHead"):
        GFL(head=tiny_atss().head)
