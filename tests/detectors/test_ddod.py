"""The targets, counts, losses and options of DDOD, against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import sigmoid_focal_loss
from torchvision.ops import box_iou, generalized_box_iou

from dense_kd import BCKD, Distiller, MethodSet, Teacher
from dense_kd.detectors import DDOD
from dense_kd.detectors.ddod import DDODTargets, level_factors
from dense_kd.outputs import DensePass, Targets
from helpers.builders import (
    CASES,
    NUM_CLASSES,
    assert_close,
    batch,
    instances,
    tiny_ddod,
    tiny_gfl,
)

COUNTS = torch.tensor([[70, 20, 10], [40, 80, 0]])


def pass_and_targets(model: DDOD, inputs: list[dict]) -> tuple[DensePass, DDODTargets]:
    dense = model.run(model.preprocess_image(inputs))
    return dense, model.targets(dense, model.ground_truth(inputs))


def positives_per_level(dense: DensePass, targets) -> torch.Tensor:
    levels = targets.foreground.split(dense.num_predictions, dim=1)
    return torch.tensor([level.sum().item() for level in levels])


@pytest.mark.parametrize(
    "counts, expected",
    [
        ([96, 16, 0, 0, 0], [1, 2 - 16 / 96, 2, 2, 2]),
        ([30, 20, 10], [1, 1.5, 2]),
        ([0, 0, 0], [2, 2, 2]),
        ([7, 7, 7], [2, 2, 2]),
        ([5], [2]),
        ([10**10, 10**10 + 4, 10**10 + 1], [2, 1, 1.75]),  # float32 would lose these counts
    ],
)
def test_levels_with_fewer_positives_weigh_more(counts, expected):
    found = level_factors(torch.tensor(counts))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_losses_are_the_formulas_of_the_paper_weighted_by_level():
    model = tiny_ddod(focal_loss_alpha=0.4, focal_loss_gamma=1.5, box_loss_weight=3.0)
    model.level_positives.copy_(COUNTS)
    dense, targets = pass_and_targets(model, batch("usual"))
    losses = model.losses(dense, targets)
    assert list(losses) == ["loss_cls", "loss_box_reg", "loss_iou"]

    regression = targets.regression
    of_class, of_box = (positives_per_level(dense, t) for t in (targets, regression))
    assert of_class.sum() > 5 and of_box.sum() > 5 and not torch.equal(of_class, of_box)
    counts = COUNTS[0] + of_class
    factors = []
    for added in (0, of_box):
        counts = counts + added
        factors.append([2 - (n - min(counts)) / (max(counts) - min(counts)) for n in counts])
    factors = torch.tensor(factors)
    assert_close(targets.level_factors, factors, 1e-6)

    sizes = torch.tensor(dense.num_predictions)
    cls_weight, box_weight = (f.repeat_interleave(sizes).expand(2, -1) for f in factors)
    one_hot = F.one_hot(targets.labels.clamp(min=0), NUM_CLASSES + 1)[..., :-1].float()
    focal = sigmoid_focal_loss(torch.cat(dense.logits, 1), one_hot, alpha=0.4, gamma=1.5)
    focal = (focal.sum(-1) * cls_weight)[targets.valid].sum()
    assert_close(losses["loss_cls"], focal / of_class.sum(), what="class loss")

    foreground = regression.foreground
    weight = box_weight[foreground]
    boxes, truth = torch.cat(dense.boxes, 1)[foreground], regression.boxes[foreground]
    giou_loss = (weight * (1 - generalized_box_iou(boxes, truth).diagonal())).sum()
    assert_close(losses["loss_box_reg"], 3 * giou_loss / of_box.sum(), what="box loss")
    predicted = torch.cat(dense.quality, dim=1)[foreground].sigmoid()
    overlap = box_iou(boxes, truth).diagonal().detach()
    entropy = F.binary_cross_entropy(predicted, overlap, reduction="none")
    assert_close(losses["loss_iou"], (weight * entropy).sum() / of_box.sum(), what="IoU loss")


def test_each_loss_trains_what_it_is_for():
    model = tiny_ddod()
    dense, targets = pass_and_targets(model, batch("usual"))
    losses = model.losses(dense, targets)
    convs = ("cls_score", "bbox_pred", "iou_pred", "cls_subnet.0.conv_offset", "bbox_subnet.0")
    weights = [model.head.get_submodule(name).weight for name in convs]
    for name, expected in (
        ("loss_cls", [True, False, False, True, False]),
        ("loss_box_reg", [False, True, False, False, True]),
        ("loss_iou", [False, False, True, False, True]),
    ):
        found = torch.autograd.grad(losses[name], weights, allow_unused=True, retain_graph=True)
        assert [g is not None and bool(g.abs().sum() > 0) for g in found] == expected, name


def test_assignment_leaves_the_boxes_of_the_pass_with_gradient():
    dense, _ = pass_and_targets(tiny_ddod(), batch("usual"))
    assert all(boxes.requires_grad for boxes in dense.boxes)


@pytest.mark.parametrize("separate", [False, True])
def test_counts_go_on_from_batch_to_batch(separate: bool):
    model = tiny_ddod(separate_level_counts=separate)
    total = torch.zeros(2, 3, dtype=torch.int64)
    for seed in range(2):
        dense, targets = pass_and_targets(model, batch("usual", seed=seed))
        rows = (0, 1) if separate else (0, 0)
        for branch, assigned in enumerate((targets, targets.regression)):
            total[rows[branch]] += positives_per_level(dense, assigned)
            factors = level_factors(total[rows[branch]])
            assert torch.equal(targets.level_factors[branch], factors)
        assert torch.equal(model.level_positives, total)
    assert (total[1].sum() > 0) == separate


def test_counts_and_normalizers_rest_in_eval_mode_and_when_only_labels_are_asked_for():
    model = tiny_ddod()
    dense, targets = pass_and_targets(model, batch("usual"))
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert state["level_positives"].sum() > 0
    truth = model.ground_truth(batch("one empty", seed=5))
    model.assign(dense, truth)
    model.assign(dense, truth, "bbox")
    with pytest.raises(ValueError, match="branch='reg': expected one of"):
        model.assign(dense, truth, "reg")
    model.eval()
    again = model.targets(dense, truth)
    model(batch("usual"))
    assert all(torch.equal(buffer, state[name]) for name, buffer in model.named_buffers())
    assert torch.equal(again.level_factors[0], level_factors(model.level_positives[0]))
    assert again.normalizer == targets.normalizer


def test_the_two_normalizers_count_their_own_positives_and_an_empty_image_as_one():
    for case in CASES:
        _, targets = pass_and_targets(tiny_ddod(), batch(case))
        for assigned in (targets, targets.regression):
            counts = assigned.foreground.sum(dim=1).tolist()
            assert [n == 0 for n in counts] == [case == "all empty", case != "usual"]
            assert assigned.normalizer == sum(max(n, 1) for n in counts)
        if case == "usual":
            assert targets.normalizer != targets.regression.normalizer


def test_moving_averages_of_the_two_normalizers_do_not_mix():
    model = tiny_ddod(loss_normalizer=100.0, loss_normalizer_momentum=0.5)
    _, targets = pass_and_targets(model, batch("usual"))
    for assigned in (targets, targets.regression):
        assert assigned.normalizer == 50 + 0.5 * assigned.foreground.sum()
    assert model.loss_normalizer == targets.normalizer
    assert model.regression_normalizer == targets.regression.normalizer
    assert set(model.training_buffers) == {"loss_normalizer", "regression_normalizer"}


def test_targets_may_come_from_the_predictions_of_another_detector():
    student, teacher = tiny_ddod(seed=0), tiny_ddod(seed=1).eval()
    inputs = batch("usual")
    truth = student.ground_truth(inputs)
    dense = student.run(student.preprocess_image(inputs))
    own = student.assign(dense, truth)[0]
    with torch.no_grad():
        of_teacher = teacher.run(student.preprocess_image(inputs))
        expected = [teacher.assign(of_teacher, truth, b)[0] for b in ("cls", "bbox")]
    targets = student.targets(of_teacher, truth)
    assert torch.equal(targets.labels, expected[0]) and not torch.equal(targets.labels, own)
    assert torch.equal(targets.regression.labels, expected[1])
    losses = student.losses(dense, targets)
    # The IoU branch learns the IoU of the student's boxes, not of those that were assigned.
    foreground = targets.regression.foreground
    boxes = torch.cat(dense.boxes, dim=1)[foreground]
    overlap = box_iou(boxes, targets.regression.boxes[foreground]).diagonal().detach()
    logits = torch.cat(dense.quality, dim=1)[foreground]
    weight = [f.expand(n) for f, n in zip(targets.level_factors[1], dense.num_predictions)]
    weight = torch.cat(weight).expand_as(foreground)[foreground]
    expected = F.binary_cross_entropy_with_logits(logits, overlap, weight, reduction="sum")
    assert_close(losses["loss_iou"], expected / targets.regression.normalizer)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in student.head.parameters())


@pytest.mark.parametrize("cost_rule, reg_alpha", [("mmdet", 0.5), ("pgd", 0.6)])
def test_the_rule_gives_the_assigners_and_their_weights(cost_rule: str, reg_alpha: float):
    model = tiny_ddod(cost_rule=cost_rule, assign_topk=7, padding_multiple=16)
    for assigner, alpha in ((model.assigner, 0.8), (model.regression_assigner, reg_alpha)):
        assert (assigner.cost_rule, assigner.alpha) == (cost_rule, alpha)
        assert (assigner.topk, assigner.padding_multiple) == (7, 16)
    model = tiny_ddod(cost_rule=cost_rule, cls_alpha=0.7, reg_alpha=0.3)
    assert (model.assigner.alpha, model.regression_assigner.alpha) == (0.7, 0.3)


def test_pgds_rule_assigns_otherwise_and_trains():
    inputs = batch("usual")
    ours = tiny_ddod()
    pgd = tiny_ddod(cost_rule="pgd", separate_level_counts=True)
    labels = [pass_and_targets(model, inputs)[1].labels for model in (ours, pgd)]
    assert not torch.equal(*labels)
    per_box = torch.stack([(labels[1] == k).sum() for k in range(NUM_CLASSES)])
    assert 0 < per_box.sum() <= 9 * 6  # nine for each of six boxes
    for case in CASES:
        losses = pgd(batch(case))
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()


def test_targets_with_one_assignment_are_refused():
    model = tiny_ddod()
    dense, targets = pass_and_targets(model, batch("usual"))
    plain = Targets(targets.labels, targets.boxes, NUM_CLASSES, targets.normalizer)
    with pytest.raises(TypeError, match="targets is a Targets, expected the DDODTargets"):
        model.losses(dense, plain)


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_of_the_head_gets_a_finite_gradient(case: str):
    model = tiny_ddod()
    losses = model(batch(case))
    assert (losses["loss_box_reg"] == 0) == (losses["loss_iou"] == 0) == (case == "all empty")
    assert losses["loss_cls"] > 0
    sum(losses.values()).backward()
    for name, parameter in model.head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    if case == "all empty":
        assert model.head.bbox_pred.weight.grad.abs().max() == 0
        assert model.level_positives.sum() == 0


def test_boxes_that_no_prediction_overlaps_give_finite_losses():
    model = tiny_ddod()
    inputs = batch("usual")
    for image in inputs:
        image["instances"] = instances(image["image"].shape[1:], [[0, 0, 1.5, 1.5]], [0])
    losses = model(inputs)
    assert all(loss.isfinite() for loss in losses.values())


def test_levels_smaller_than_the_kernel_train_and_detect():
    model = tiny_ddod(num_levels=5)
    dense = model.run(model.preprocess_image(batch("usual")))
    assert [tuple(f.shape[2:]) for f in dense.features][-2:] == [(2, 2), (1, 1)]
    sum(model(batch("usual")).values()).backward()
    found = model.eval()(batch("usual"))
    assert all(x["instances"].scores.isfinite().all() for x in found)


def test_under_autocast_losses_are_float32_and_close_given_the_assignment():
    model = tiny_ddod()
    dense, targets = pass_and_targets(model, batch("usual"))
    expected = model.losses(dense, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.run(model.preprocess_image(batch("usual")))
        losses = model.losses(mixed, targets)
        own = model.losses(mixed, model.targets(mixed, model.ground_truth(batch("usual"))))
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[name].item(), rel=0.02)
    sum(own.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.head.parameters())


def test_autocast_does_not_change_the_assignment_of_given_predictions():
    model = tiny_ddod()
    dense = model.run(model.preprocess_image(batch("usual")))
    truth = model.ground_truth(batch("usual"))
    expected = [model.assign(dense, truth, branch) for branch in ("cls", "bbox")]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [model.assign(dense, truth, branch) for branch in ("cls", "bbox")]
    for (labels, boxes), (expected_labels, expected_boxes) in zip(found, expected):
        assert torch.equal(labels, expected_labels) and torch.equal(boxes, expected_boxes)


@pytest.mark.parametrize("student, teacher", [(tiny_ddod, tiny_gfl), (tiny_gfl, tiny_ddod)])
@pytest.mark.parametrize("case", CASES)
def test_bckd_distils_between_ddod_and_gfl(student, teacher, case):
    guide = teacher(seed=1)
    distiller = Distiller(
        student=student(), teacher=Teacher(guide, None), methods=MethodSet(bckd=BCKD())
    )
    losses = distiller(batch(case))
    assert (losses["kd_bckd_loss_cls"] > 0) == (case != "all empty")
    sum(losses.values()).backward()
    for name, parameter in distiller.student.head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    if teacher is tiny_ddod:
        assert guide.level_positives.sum() == 0


def test_the_counts_are_in_the_checkpoints_of_a_run():
    model = tiny_ddod()
    model(batch("usual"))
    assert model.level_positives.sum() > 0
    distiller = Distiller(
        student=model, teacher=Teacher(tiny_ddod(seed=1), None), methods=MethodSet(bckd=BCKD())
    )
    assert torch.equal(distiller.state_dict()["level_positives"], model.level_positives)
    other = tiny_ddod(seed=2)
    other.load_state_dict(distiller.state_dict(), strict=True)
    assert torch.equal(other.level_positives, model.level_positives)
