"""Losses against values of the original implementations, see golden/README.md."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor

from dense_kd.losses import (
    BOX_LOSSES,
    binary_divergence,
    dense_box_loss,
    distribution_focal_loss,
    elementwise_diou,
    elementwise_giou,
    elementwise_iou,
    focal_loss,
    kl_divergence,
    modulated_binary_cross_entropy,
    quality_focal_loss,
)
from helpers.builders import assert_close, golden

MMDET = golden("losses_mmdet")
CROSSKD = golden("losses_crosskd")
# Ten times what was measured: 1.5e-7, 2.0e-7, and 5.5e-7 and 4.7e-7 of the divergence at T = 10.
LOSS_NOISE, GRADIENT_NOISE, DIVERGENCE_NOISE = 2e-6, 2e-6, 6e-6
IDENTICAL = 5  # a row of the golden boxes
BOTH_OVERLAPS = pytest.mark.parametrize("overlap", [elementwise_iou, elementwise_giou])


def iou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    return -elementwise_iou(boxes, targets).clamp(min=1e-6).log()


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    return 1 - elementwise_giou(boxes, targets)


@pytest.mark.parametrize(("tag", "loss"), [("iou", iou_loss), ("giou", giou_loss)])
def test_overlaps_give_mmdetections_losses_also_of_degenerate_boxes(tag: str, loss):
    boxes = MMDET["box_pred"].requires_grad_(True)
    values = loss(boxes, MMDET["box_target"])
    assert_close(values, MMDET[f"{tag}_none/loss"], LOSS_NOISE)
    gradient = torch.autograd.grad(values.sum(), boxes)[0]
    assert_close(gradient, MMDET[f"{tag}_none/grad"], GRADIENT_NOISE)
    if tag == "giou":
        assert values[IDENTICAL].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("tag", "loss"), [("iou", iou_loss), ("giou", giou_loss)])
def test_overlaps_give_mmdetections_weighted_losses(tag: str, loss):
    boxes = MMDET["box_pred"].requires_grad_(True)
    values = loss(boxes, MMDET["box_target"])
    total = 2 * (values * MMDET["weight"]).sum() / MMDET["avg_factor"]
    assert_close(total, MMDET[f"{tag}_avg_lw2/loss"], LOSS_NOISE)
    gradient = torch.autograd.grad(total, boxes)[0]
    assert_close(gradient, MMDET[f"{tag}_avg_lw2/grad"], GRADIENT_NOISE)


def test_overlaps_of_two_boxes_by_hand():
    """G9: squares of 16 that share 4, in a square of 36."""
    boxes, targets = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[2.0, 2, 6, 6]])
    assert elementwise_iou(boxes, targets).item() == pytest.approx(4 / 28)
    assert elementwise_giou(boxes, targets).item() == pytest.approx(4 / 28 - 8 / 36)


def diou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    return 1 - elementwise_diou(boxes, targets)[0]


def test_diou_gives_mmdetections_loss_also_of_degenerate_boxes():
    boxes = MMDET["box_pred"].detach().requires_grad_(True)
    values = diou_loss(boxes, MMDET["box_target"])
    assert_close(values, MMDET["diou_none/loss"], LOSS_NOISE)
    gradient = torch.autograd.grad(values.sum(), boxes)[0]
    assert_close(gradient, MMDET["diou_none/grad"], GRADIENT_NOISE)


def test_diou_gives_mmdetections_weighted_loss():
    boxes = MMDET["box_pred"].detach().requires_grad_(True)
    total = 2 * (diou_loss(boxes, MMDET["box_target"]) * MMDET["weight"]).sum()
    total = total / MMDET["avg_factor"]
    assert_close(total, MMDET["diou_avg_lw2/loss"], LOSS_NOISE)
    assert_close(torch.autograd.grad(total, boxes)[0], MMDET["diou_avg_lw2/grad"], GRADIENT_NOISE)


def test_weights_of_zero_give_no_loss():
    boxes = MMDET["box_pred"].detach().requires_grad_(True)
    total = (giou_loss(boxes, MMDET["box_target"]) * 0 * MMDET["weight"]).sum()
    assert total == MMDET["giou_avg_zero_weight/loss"] == 0
    assert torch.autograd.grad(total, boxes)[0].abs().max() == 0


@BOTH_OVERLAPS
def test_overlaps_take_any_leading_dimensions(overlap):
    boxes, targets = MMDET["box_pred"].detach(), MMDET["box_target"]
    expected = overlap(boxes, targets)
    shaped = overlap(boxes.view(4, 16, 4), targets.view(4, 16, 4))
    assert shaped.shape == (4, 16) and torch.equal(shaped.flatten(), expected)
    assert overlap(boxes[:0], targets[:0]).shape == (0,)


@BOTH_OVERLAPS
@pytest.mark.parametrize("size", [0.0, 1e-4], ids=["points", "far below a pixel"])
def test_overlaps_of_the_smallest_boxes_have_finite_values_and_gradients(overlap, size: float):
    boxes = torch.tensor([[1.0, 1.0, 1.0 + size, 1.0 + size]], requires_grad=True)
    value = overlap(boxes, boxes.detach().clone())
    value.sum().backward()
    assert value.isfinite().all() and boxes.grad.isfinite().all()


@pytest.mark.parametrize("beta", [1, 2])
def test_modulated_cross_entropy_gives_crosskds_weighted_loss(beta: int):
    logits = CROSSKD["stu_cls"].requires_grad_(True)
    values, _ = modulated_binary_cross_entropy(logits, CROSSKD["tea_cls"], beta)
    assert values.shape == logits.shape[:1]
    total = (values * CROSSKD["weight"]).sum() / CROSSKD["avg_factor"]
    tag = f"kdqfl_beta{beta}_w_avg"
    assert_close(total, CROSSKD[f"{tag}/loss"], LOSS_NOISE)
    gradient = torch.autograd.grad(total, logits)[0]
    assert_close(gradient, CROSSKD[f"{tag}/grad"], GRADIENT_NOISE)


def test_modulated_cross_entropy_gives_crosskds_unweighted_loss():
    logits = CROSSKD["stu_cls"].requires_grad_(True)
    values, _ = modulated_binary_cross_entropy(logits, CROSSKD["tea_cls"], 1)
    total = 0.4 * values.sum() / CROSSKD["avg_factor"]
    assert_close(total, CROSSKD["kdqfl_beta1_now_avg/loss"], LOSS_NOISE)
    gradient = torch.autograd.grad(total, logits)[0]
    assert_close(gradient, CROSSKD["kdqfl_beta1_now_avg/grad"], GRADIENT_NOISE)


def sequence(frequency: float, phase: float, amplitude: float) -> Tensor:
    index = torch.arange(18, dtype=torch.float64).view(6, 3)
    return amplitude * torch.sin(frequency * index + phase)


def test_modulated_cross_entropy_gives_the_value_of_bckds_class_loss():
    """G1: evaluated with the official loss in float64."""
    logits = sequence(0.7, 0.0, 2.0).requires_grad_(True)
    values, _ = modulated_binary_cross_entropy(logits, sequence(0.9, 0.3, 2.5), 1)
    weights = torch.tensor([1, 1, 1, 0, 1, 1], dtype=torch.float64)
    loss = (values * weights).sum() / (2 + 1.19e-7)  # as mmdetection's divisions are
    assert loss.item() == pytest.approx(4.03272096, abs=1e-8)
    gradient = torch.autograd.grad(loss, logits)[0]
    expected = [-0.10226076, -0.03842433, -0.01813220]
    assert gradient[0].tolist() == pytest.approx(expected, abs=1e-7)
    assert (gradient[3] == 0).all()


@pytest.mark.parametrize("beta", [1, 2])
def test_modulated_cross_entropy_gives_no_gradient_to_the_teacher(beta: int):
    student = CROSSKD["stu_cls"].detach().clone().requires_grad_(True)
    teacher = CROSSKD["tea_cls"].clone().requires_grad_(True)
    modulated_binary_cross_entropy(student, teacher, beta)[0].sum().backward()
    assert student.grad.abs().max() > 0 and teacher.grad is None


def test_quality_focal_loss_of_beta_zero_is_plain():
    student, teacher = CROSSKD["stu_cls"].detach(), CROSSKD["tea_cls"]
    expected = F.binary_cross_entropy(student.sigmoid(), teacher.sigmoid(), reduction="none")
    values = quality_focal_loss(student, teacher.sigmoid(), 0)
    torch.testing.assert_close(values, expected.sum(dim=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("beta", [0.25, 0.5, 1, 2])
def test_modulated_cross_entropy_has_a_finite_gradient_where_both_agree(beta: float):
    logits = torch.tensor([-100.0, 0.0, 3.0, 100.0], requires_grad=True)
    values, _ = modulated_binary_cross_entropy(logits, logits.detach().clone(), beta)
    assert values.abs().max() < 1e-9
    values.sum().backward()
    assert logits.grad.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("beta", [0.25, 0.5, 1, 2])
def test_quality_focal_loss_has_a_finite_gradient_where_score_and_label_agree(beta: float):
    logits = torch.tensor([-200.0, 0.0, 100.0], requires_grad=True)
    values = quality_focal_loss(logits, logits.detach().sigmoid(), beta)
    assert values.abs().max() < 1e-9
    values.sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("tag", "temperature", "factor"),
    [("kl_sum_T1_avg", 1.0, 4.0), ("kl_mean_T10_avg", 10.0, 1 / 17)],
)
def test_kl_divergence_gives_that_of_crosskd(tag: str, temperature: float, factor: float):
    """The sum over bins (and a loss weight of 4), or their mean, with weights of rows."""
    logits = CROSSKD["stu_dist"].clone().requires_grad_(True)
    teacher = CROSSKD["tea_dist"].clone().requires_grad_(True)
    values = kl_divergence(logits, teacher, temperature)
    assert values.shape == (60,)
    total = factor * (values * CROSSKD["weight"]).sum() / 4
    assert_close(total, CROSSKD[f"{tag}/loss"], DIVERGENCE_NOISE)
    total.backward()
    assert_close(logits.grad, CROSSKD[f"{tag}/grad"], DIVERGENCE_NOISE)
    assert teacher.grad is None


def test_kl_divergence_of_two_distributions_by_hand():
    target = torch.tensor([0.5, 0.25, 0.25]).log() + 3.0
    logits = torch.tensor([0.25, 0.25, 0.5]).log() - 1.0
    expected = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert kl_divergence(logits, target).item() == pytest.approx(expected, abs=1e-6)
    assert kl_divergence(target, target).item() == pytest.approx(0, abs=1e-7)
    halved = kl_divergence(2 * logits, 2 * target, temperature=2.0)
    assert halved.item() == pytest.approx(4 * expected, abs=1e-6)


def soft_labels() -> Tensor:
    """(64, 5): the golden IoU for the class of a row, 0 for others and for background."""
    labels = F.one_hot(MMDET["cls_label"], MMDET["cls_logits"].shape[1] + 1)[:, :-1]
    return labels * MMDET["iou_score"][:, None]


def test_quality_focal_loss_gives_mmdetections():
    assert {0, MMDET["cls_logits"].shape[1]} < set(MMDET["cls_label"].tolist())
    for tag, beta in (("qfl_beta2_avg", 2), ("qfl_beta1_mean_lw2", 1)):
        logits = MMDET["cls_logits"].clone().requires_grad_(True)
        values = quality_focal_loss(logits, soft_labels(), beta)
        if tag == "qfl_beta2_avg":
            total = (values * MMDET["weight"]).sum() / MMDET["avg_factor"]
        else:
            total = 2 * values.mean()
        assert_close(total, MMDET[f"{tag}/loss"], LOSS_NOISE)
        gradient = torch.autograd.grad(total, logits)[0]
        assert_close(gradient, MMDET[f"{tag}/grad"], GRADIENT_NOISE)


def test_focal_loss_gives_mmdetections():
    """Whose rows have weights; ours is a sum."""
    logits = MMDET["cls_logits"].clone().requires_grad_(True)
    rows = zip(logits.split(1), MMDET["cls_label"].split(1), MMDET["weight"])
    losses = [
        weight * focal_loss(row[None], label[None], alpha=0.25, gamma=2.0)
        for row, label, weight in rows
    ]
    total = sum(losses) / MMDET["avg_factor"]
    assert_close(total, MMDET["focal_avg/loss"], LOSS_NOISE)
    assert_close(torch.autograd.grad(total, logits)[0], MMDET["focal_avg/grad"], GRADIENT_NOISE)


@pytest.mark.parametrize("alpha", [0.25, 0.0, 1.0, -1])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_focal_loss_and_its_gradient_are_fvcores(alpha, gamma):
    """Also of logits at which a score is 0 or 1, of background and of ignored predictions."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 40, 3, generator=generator) * 4
    logits[0, :4] = torch.tensor([-100.0, 100.0, 0.0])
    labels = torch.randint(-1, 4, (2, 40), generator=generator)
    labels[0, :4] = torch.arange(4)
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=0), 4)[..., :3].float()
    one_hot[labels < 0] = 0
    gradients, losses = [], []
    for name in ("ours", "fvcore's"):
        x = logits.clone().requires_grad_()
        if name == "ours":
            loss = focal_loss(x, labels, alpha, gamma)
        else:
            loss = sigmoid_focal_loss(x, one_hot, alpha, gamma)[labels >= 0].sum()
        gradients.append(torch.autograd.grad(3 * loss, x)[0])
        losses.append(loss.detach())
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)
    finite = gradients[1].isfinite()  # fvcore's is NaN where a score is 1 and gamma is below 1
    assert gradients[0].isfinite().all() and (finite.all() or gamma < 1)
    torch.testing.assert_close(gradients[0][finite], gradients[1][finite], rtol=1e-5, atol=1e-5)


def test_focal_loss_is_not_scripted_but_rounds_alike_in_all_steps_of_a_process():
    logits = torch.randn(1, 500, 3, generator=torch.Generator().manual_seed(0)) * 3
    labels = torch.arange(500)[None] % 4
    found = []
    for _ in range(4):  # TorchScript compiles what it has seen once or twice
        x = logits.clone().requires_grad_()
        found.append(torch.autograd.grad(focal_loss(x, labels, 0.25, 2.0), x)[0])
    assert all(torch.equal(each, found[0]) for each in found)


def test_a_prediction_that_is_ignored_has_no_focal_loss():
    logits, labels = MMDET["cls_logits"].detach(), MMDET["cls_label"].clone()
    labels[1] = -1
    found = focal_loss(logits, labels, alpha=0.25, gamma=2.0)
    keep = torch.arange(len(labels)) != 1
    assert_close(found, focal_loss(logits[keep], labels[keep], 0.25, 2.0), LOSS_NOISE)


def test_quality_focal_loss_of_beta_zero_gives_mmdetections_binary_cross_entropy():
    logits = MMDET["bce_logit"].clone().requires_grad_(True)
    values = quality_focal_loss(logits[None], MMDET["bce_target"][None], beta=0)
    total = values.sum() / MMDET["avg_factor"]
    assert_close(total, MMDET["bce_avg/loss"], LOSS_NOISE)
    assert_close(torch.autograd.grad(total, logits)[0], MMDET["bce_avg/grad"], GRADIENT_NOISE)


def test_distribution_focal_loss_gives_mmdetections():
    logits = MMDET["dfl_logits"].clone().requires_grad_(True)
    values = distribution_focal_loss(logits, MMDET["dfl_target"])
    assert_close(values, MMDET["dfl_none/loss"], LOSS_NOISE)
    gradient = torch.autograd.grad(values.sum(), logits, retain_graph=True)[0]
    assert_close(gradient, MMDET["dfl_none/grad"], GRADIENT_NOISE)
    total = 0.25 * (values * MMDET["weight"]).sum() / MMDET["avg_factor"]
    assert_close(total, MMDET["dfl_avg/loss"], LOSS_NOISE)
    assert_close(torch.autograd.grad(total, logits)[0], MMDET["dfl_avg/grad"], GRADIENT_NOISE)


def test_distribution_focal_loss_weighs_the_two_nearest_bins():
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    entropy = -logits.log_softmax(dim=1)[0]
    for target, weights in ((0.0, [1, 0, 0]), (0.25, [0.75, 0.25, 0]), (2.0, [0, 0, 1])):
        expected = (entropy * torch.tensor(weights)).sum().item()
        found = distribution_focal_loss(logits, torch.tensor([target]))
        assert found.tolist() == pytest.approx([expected])
    assert distribution_focal_loss(logits[:0], torch.zeros(0)).shape == (0,)


def test_kl_divergence_gives_the_values_of_ld_and_crosskd():
    """LD has the mean over the bins, CrossKD their sum; evaluated with the official losses."""
    index = torch.arange(68, dtype=torch.float64).view(4, 17)
    student, teacher = 1.5 * torch.sin(0.31 * index + 0.2), 1.5 * torch.sin(0.27 * index + 1.0)
    weights = torch.tensor([0.9, 0.5, 0.2, 0.7], dtype=torch.float64)
    mean = kl_divergence(student, teacher, 10.0) / 17
    assert 0.25 * (weights * mean).sum().item() / 4 == pytest.approx(0.00375416, abs=1e-8)
    total = kl_divergence(student, teacher)
    assert 4 * (weights * total).sum().item() / 4 == pytest.approx(1.02405462, abs=1e-7)


def loss_of(kind: str, boxes: Tensor, targets: Tensor, beta: float = 0.0) -> Tensor:
    """The codes are the boxes themselves."""
    return dense_box_loss(kind, boxes, targets, boxes, targets, beta)


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_box_losses_are_sums_of_mmdetections(kind: str):
    boxes = MMDET["box_pred_ciou" if kind == "ciou" else "box_pred"].detach()
    targets = MMDET["box_target"]
    rows = (boxes[:, 2:] > boxes[:, :2]).all(1) & (targets[:, 2:] > targets[:, :2]).all(1)
    if kind == "ciou":  # mmdetection ignores the aspect ratio up to an IoU of 0.5, torchvision not
        rows &= elementwise_iou(boxes, targets) > 0.5
    assert rows.sum() >= 5
    loss = loss_of(kind, boxes[rows], targets[rows])
    assert_close(loss, MMDET[f"{kind}_none/loss"][rows].sum(), LOSS_NOISE)


def test_gradients_of_ciou_are_mmdetections_where_it_regards_the_aspect_ratio():
    boxes = MMDET["box_pred_ciou"].detach().requires_grad_(True)
    targets = MMDET["box_target"]
    rows = elementwise_iou(boxes, targets) > 0.5
    values = torch.stack([
        loss_of("ciou", boxes[i : i + 1], targets[i : i + 1]) for i in range(len(boxes))
    ])  # fmt: skip
    (gradient,) = torch.autograd.grad(values[rows].sum(), boxes, retain_graph=True)
    assert_close(gradient[rows], MMDET["ciou_none/grad"][rows], GRADIENT_NOISE)
    values = torch.where(rows, values, MMDET["ciou_none/loss"])
    total = 2 * (values * MMDET["weight"]).sum() / MMDET["avg_factor"]
    assert_close(total, MMDET["ciou_avg_lw2/loss"], LOSS_NOISE)
    (gradient,) = torch.autograd.grad(total, boxes)
    assert_close(gradient[rows], MMDET["ciou_avg_lw2/grad"][rows], GRADIENT_NOISE)


@pytest.mark.parametrize(("tag", "beta"), [("l1", 0.0), ("smooth_l1", 1 / 9)])
def test_l1_losses_give_mmdetections_weighted_loss(tag: str, beta: float):
    boxes = MMDET["box_pred"].detach().requires_grad_(True)
    rows = zip(boxes.split(1), MMDET["box_target"].split(1), MMDET["weight"])
    losses = [weight * loss_of("smooth_l1", row, target, beta) for row, target, weight in rows]
    total = sum(losses) / MMDET["avg_factor"]
    assert_close(total, MMDET[f"{tag}_avg/loss"], LOSS_NOISE)
    (gradient,) = torch.autograd.grad(total, boxes)
    assert_close(gradient, MMDET[f"{tag}_avg/grad"], GRADIENT_NOISE)


def test_smooth_l1_is_quadratic_below_beta_and_l1_above():
    boxes, targets = torch.tensor([[0.0, 1, 2, 3]]), torch.tensor([[0.5, 1, 2, 5]])
    assert loss_of("smooth_l1", boxes, targets).item() == 2.5
    assert loss_of("smooth_l1", boxes, targets, beta=1.0).item() == 0.125 + 1.5


@pytest.mark.parametrize("kind", BOX_LOSSES)
def test_a_box_that_fits_has_no_loss_and_a_finite_gradient(kind: str):
    boxes = torch.tensor([[3.0, 5.0, 40.0, 21.0]], requires_grad=True)
    loss = loss_of(kind, boxes, boxes.detach().clone())
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and boxes.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_a_box_without_height_has_a_finite_gradient(kind: str):
    boxes = torch.tensor([[3.0, 5.0, 40.0, 5.0], [3.0, 5.0, 3.0, 5.0]], requires_grad=True)
    loss = loss_of(kind, boxes, torch.tensor([[3.0, 5.0, 40.0, 21.0]]).expand(2, 4))
    loss.backward()
    assert loss.isfinite() and boxes.grad.isfinite().all()


def test_a_binary_divergence_gives_no_gradient_to_the_teacher():
    logits, teacher = (torch.tensor([[0.3, -1.2]]).mul(i).requires_grad_() for i in (1, 2))
    binary_divergence(logits, teacher).sum().backward()
    assert_close(logits.grad, (logits.sigmoid() - teacher.sigmoid()).detach())
    assert teacher.grad is None


@pytest.mark.parametrize("kind", BOX_LOSSES)
def test_box_losses_of_no_boxes_are_zero_and_keep_the_graph(kind: str):
    boxes = torch.zeros(0, 4, requires_grad=True)
    loss = loss_of(kind, boxes, torch.zeros(0, 4))
    assert loss.shape == () and loss == 0
    loss.backward()
    assert boxes.grad.shape == (0, 4)
