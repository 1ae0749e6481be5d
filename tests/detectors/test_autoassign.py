"""The head, targets, losses and scores of AutoAssign, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou

from dense_kd.benchmark.memory import peak_of_tensors
from dense_kd.detectors import ATSS, FCOS, ATSSHead, AutoAssign, AutoAssignHead, AutoAssignTargets
from dense_kd.detectors.autoassign import CenterPrior
from dense_kd.outputs import DensePass, Targets
from helpers.builders import (
    CASES,
    NUM_CLASSES,
    assert_close,
    batch,
    instances,
    tiny_atss,
    tiny_autoassign,
    tiny_fcos,
)

LOSSES = ["loss_pos", "loss_neg", "loss_center"]


def pass_and_targets(model: AutoAssign, inputs: list[dict]) -> tuple[DensePass, AutoAssignTargets]:
    dense = model.run(model.preprocess_image(inputs))
    return dense, model.targets(dense, model.ground_truth(inputs))


def losses_of(model: AutoAssign, inputs: list[dict]) -> dict[str, Tensor]:
    return model.losses(*pass_and_targets(model, inputs))


def with_boxes(*boxes: list[float], classes: list[int] | None = None) -> list[dict]:
    """Two images that both have these boxes, of class 0 by default."""
    inputs = batch("usual")
    for image in inputs:
        size = tuple(image["image"].shape[1:])
        image["instances"] = instances(size, list(boxes), classes or [0] * len(boxes))
    return inputs


def test_the_centre_prior_is_a_gaussian_per_class_and_axis():
    prior = CenterPrior(3)
    assert prior.mean.tolist() == [[0, 0]] * 3 and prior.sigma.tolist() == [[1, 1]] * 3
    prior.mean.data[2] = torch.tensor([1.0, -2.0])
    prior.sigma.data[2] = torch.tensor([0.5, 4.0])
    offsets, classes = torch.tensor([[1.0, 2.0], [2.0, 0.0], [1.0, -2.0]]), torch.tensor([0, 2, 2])
    # -(1 + 4) / 2; -1 / (2 * .25) - 4 / (2 * 16); the mean
    assert prior(offsets, classes).tolist() == pytest.approx([-2.5, -2.125, 0])


def test_a_deviation_of_zero_gives_finite_priors_and_gradients():
    prior = CenterPrior(1)
    prior.sigma.data.zero_()
    log_prior = prior(torch.tensor([[0.0, 0.0], [0.5, 0.0]]), torch.tensor([0, 0]))
    assert log_prior[0] == 0 and log_prior.exp()[1] == 0 and log_prior.isfinite().all()
    log_prior.exp().sum().backward()
    assert prior.mean.grad.isfinite().all() and prior.sigma.grad.isfinite().all()


def paper(model: AutoAssign, dense: DensePass, targets: AutoAssignTargets) -> dict[str, Tensor]:
    """The losses with matrices of all locations and boxes; no location may be in two boxes of one
    class."""
    box_weight, prior = model.box_loss_weight, model.head.center_prior
    anchors = torch.cat(dense.priors)
    points, strides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    positive, negative, total, center, count = 0.0, 0.0, 0.0, [], 0
    for index, truth in enumerate(targets.ground_truth):
        q = torch.cat(dense.logits, 1)[index].sigmoid()
        q = q * torch.cat(dense.quality, 1)[index].sigmoid()[:, None]  # (R, K)
        boxes, gt_boxes = torch.cat(dense.boxes, 1)[index], truth.gt_boxes.tensor
        overlap = box_iou(boxes, gt_boxes).detach()  # (R, M)
        p = q[:, truth.gt_classes]
        p = p * (-box_weight * (1 - generalized_box_iou(boxes, gt_boxes))).exp()
        weight, prior_sum = torch.ones_like(q), 0.0
        for j, (box, label) in enumerate(zip(gt_boxes, truth.gt_classes)):
            inside = ((points > box[:2]) & (points < box[2:])).all(dim=1)
            offset = (points - (box[:2] + box[2:]) / 2) / strides
            d = (offset - prior.mean[label]) / prior.sigma[label]
            g = (-d.square().sum(dim=1) / 2).exp() * inside
            w = (3 * p[:, j]).exp() * g
            positive = positive - (w * p[:, j] / w.sum()).sum().log()
            f = 1 / (1 - overlap.amax(dim=1)[inside])
            assert (weight[inside, label] == 1).all()
            weight[inside, label] = 1 - (f - f.min()) / (f.max() - f.min())
            prior_sum = prior_sum + g.sum()
        negative = negative - ((q * weight) ** 2 * (1 - q * weight).log()).sum()
        total, count = total + prior_sum, count + len(truth)
        center.append(len(truth) / prior_sum if len(truth) else torch.tensor(0.0))
    return {
        "loss_pos": model.positive_loss_weight * positive / count,
        "loss_neg": model.negative_loss_weight * negative / total.detach(),
        "loss_center": model.center_loss_weight * sum(center) / 2,
    }


@pytest.mark.parametrize("case", ["usual", "one empty"])
def test_losses_and_gradients_are_the_formulas_of_the_paper(case: str):
    model = tiny_autoassign(
        positive_loss_weight=0.5,
        negative_loss_weight=2.0,
        center_loss_weight=3.0,
        box_loss_weight=4.0,
    )
    inputs = batch(case)
    for image in inputs:  # every class once
        image["instances"].gt_classes[:] = torch.arange(len(image["instances"])) + 1
    dense, targets = pass_and_targets(model, inputs)
    losses, expected = model.losses(dense, targets), paper(model, dense, targets)
    assert list(losses) == LOSSES
    parameters = dict(model.head.named_parameters())
    for name in LOSSES:
        assert expected[name] > 0.01
        assert_close(losses[name], expected[name], 1e-5, name)
        found, reference = (
            torch.autograd.grad(
                x[name], list(parameters.values()), retain_graph=True, allow_unused=True
            )
            for x in (losses, expected)
        )
        for key, gradient, of_paper in zip(parameters, found, reference):
            if of_paper is None:
                assert gradient is None or gradient.abs().max() == 0, (name, key)
            else:
                assert_close(gradient, of_paper, 1e-4, f"{name} {key}")


def test_the_center_loss_divides_by_priors_below_one():
    """The only location of the only box is 3.25 pixels from its centre, of strides of 8."""
    model = tiny_autoassign(center_loss_weight=1.0)
    model.head.center_prior = CenterPrior(NUM_CLASSES)
    losses = losses_of(model, with_boxes([7, 7, 15.5, 15.5]))
    assert losses["loss_center"].item() == pytest.approx(math.exp((3.25 / 8) ** 2))


def test_only_the_positive_loss_trains_boxes_and_the_negative_divisor_has_no_gradient():
    model = tiny_autoassign()
    losses = losses_of(model, batch("usual"))
    head = model.head
    parameters = (
        head.cls_score.weight,
        head.ctrness.weight,
        head.bbox_pred.weight,
        head.center_prior.mean,
    )
    for name, expected in (
        ("loss_pos", [True, True, True, True]),
        ("loss_neg", [True, True, False, False]),
        ("loss_center", [False, False, False, True]),
    ):
        found = torch.autograd.grad(losses[name], parameters, allow_unused=True, retain_graph=True)
        reached = [g is not None and g.abs().max().item() > 0 for g in found]
        assert reached == expected, name


def test_foreground_of_methods_is_the_smallest_box_of_each_location():
    inputs = with_boxes(
        [-100, -100, 400, 300],
        [10, 10, 50, 50],
        [10, 10, 50, 50],
        [20, 20, 30, 30],
        [1, 1, 3, 3],
        classes=[0, 1, 2, 3, 2],
    )
    model = tiny_autoassign()
    dense, targets = pass_and_targets(model, inputs)
    assert targets.foreground.all() and targets.valid.all()  # the first box holds everything
    points = torch.cat(dense.priors).view(-1, 2, 2).mean(dim=1)
    for label, box, point in zip(targets.labels[0], targets.boxes[0], points.tolist()):
        inner = [
            low < coordinate < high for low, high in ((10, 50), (20, 30)) for coordinate in point
        ]
        expected = 3 if all(inner) else 1 if all(inner[:2]) else 0
        assert label == expected
        assert box[0] == {0: -100, 1: 10, 3: 20}[expected]
    assert set(targets.labels[0].tolist()) == {0, 1, 3}


def test_locations_outside_of_boxes_are_background():
    dense, targets = pass_and_targets(tiny_autoassign(), with_boxes([10, 10, 50, 50]))
    points = torch.cat(dense.priors).view(-1, 2, 2).mean(dim=1)
    inside = ((points > 10) & (points < 50)).all(dim=1)
    assert inside.any() and torch.equal(targets.foreground, inside.expand(2, -1))
    assert (targets.labels[:, ~inside] == NUM_CLASSES).all()


@pytest.mark.parametrize(("case", "count"), list(zip(CASES, [6, 3, 1])))
def test_the_normalizer_is_the_number_of_boxes_and_at_least_one(case: str, count: int):
    _, targets = pass_and_targets(tiny_autoassign(), batch(case))
    assert targets.normalizer == count


def test_targets_depend_on_nothing_but_their_arguments():
    model = tiny_autoassign()
    dense, expected = pass_and_targets(model, batch("usual"))
    for training in (True, False):
        pass_and_targets(model.train(), batch("one empty", seed=5))
        targets = model.train(training).targets(dense, model.ground_truth(batch("usual")))
        assert torch.equal(targets.labels, expected.labels)
        assert torch.equal(targets.boxes, expected.boxes)
        assert torch.equal(targets.normalizer, expected.normalizer)
        assert [len(truth) for truth in targets.ground_truth] == [3, 3]


@pytest.mark.parametrize("case", ["one empty", "all empty"])
def test_losses_without_boxes_keep_the_graph(case: str):
    model = tiny_autoassign()
    dense, targets = pass_and_targets(model, batch(case))
    losses = model.losses(dense, targets)
    assert (losses["loss_pos"] == 0) == (losses["loss_center"] == 0) == (case == "all empty")
    assert losses["loss_neg"] > 0
    sum(losses.values()).backward()
    for name, parameter in model.head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    if case == "all empty":
        logits, quality = (torch.cat(x, dim=1) for x in (dense.logits, dense.quality))
        q = logits.sigmoid() * quality.sigmoid()[..., None]
        # Everything is a negative, and the divisor, the sum of no G, is 1.
        assert_close(losses["loss_neg"], -0.75 * (q**2 * (1 - q).log()).sum())
        assert model.head.bbox_pred.weight.grad.abs().max() == 0


def test_an_image_without_boxes_halves_the_centre_loss_of_two():
    inputs = batch("one empty")
    model = tiny_autoassign()
    alone = losses_of(model, [{**inputs[0]}])["loss_center"]
    assert_close(losses_of(model, inputs)["loss_center"], alone / 2)


def test_a_box_without_a_location_adds_a_constant_and_counts_in_the_divisors():
    model, box, empty = tiny_autoassign(), [10, 10, 50, 50], [1, 1, 3, 3]
    expected = losses_of(model, with_boxes(box))
    losses = losses_of(model, with_boxes(box, empty))
    constant = 0.25 * 100
    assert_close(losses["loss_pos"], (expected["loss_pos"] + constant) / 2)
    assert_close(losses["loss_neg"], expected["loss_neg"])
    assert_close(losses["loss_center"], expected["loss_center"] * 2)  # 2 / sum(G)
    nothing = losses_of(model, with_boxes(empty))
    assert nothing["loss_pos"] == constant and nothing["loss_center"] == 0


def test_two_identical_boxes_have_the_losses_of_one():
    model, box = tiny_autoassign(), [10, 10, 50, 50]
    expected, losses = (losses_of(model, with_boxes(*[box] * n)) for n in (1, 2))
    assert_close(losses["loss_pos"], expected["loss_pos"])
    assert_close(losses["loss_center"], expected["loss_center"])
    assert_close(losses["loss_neg"], expected["loss_neg"] / 2)  # the divisor is the sum of G


def test_boxes_and_scores_without_error_give_finite_losses_and_gradients():
    model = tiny_autoassign()
    dense, _ = pass_and_targets(model, batch("usual"))
    box = torch.tensor([-50.0, -50, 300, 300])
    truth = [instances(size, [box.tolist()], [1]) for size in dense.image_sizes]
    dense.deltas = [
        model.box2box_transform.get_deltas(priors, box).expand(2, -1, 4).clone().requires_grad_()
        for priors in dense.priors
    ]
    dense.quality = [torch.full_like(x, 30.0).requires_grad_() for x in dense.quality]
    certain = torch.tensor([-30.0, 30.0, -30.0, -30.0])
    dense.logits = [certain.expand_as(x).clone().requires_grad_() for x in dense.logits]
    losses = model.losses(dense, model.targets(dense, truth))
    assert 0 <= losses["loss_pos"] < 1e-5 and losses["loss_neg"] < 1e-5
    maps = [*dense.logits, *dense.quality, *dense.deltas]
    for gradient in torch.autograd.grad(sum(losses.values()), maps):
        assert gradient.isfinite().all()


def test_under_autocast_losses_are_float32_and_close_to_full_precision():
    model = tiny_autoassign()
    full = model(batch("usual"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(batch("usual"))
    for name in LOSSES:
        assert mixed[name].dtype == torch.float32
        assert mixed[name].item() == pytest.approx(full[name].item(), rel=0.02), name
    sum(mixed.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@pytest.mark.slow
def test_training_lowers_the_loss_and_moves_the_centre_prior():
    torch.manual_seed(0)
    model, inputs = tiny_autoassign(), batch("usual")
    before = {n: p.clone() for n, p in model.head.center_prior.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    totals = []
    for _ in range(40):
        losses = model(inputs)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        totals.append(sum(losses.values()).item())
    assert totals[-1] < 0.6 * totals[0]
    for name, parameter in model.head.center_prior.named_parameters():
        assert (parameter - before[name]).abs().max() > 1e-3, name


@pytest.mark.slow
def test_500_boxes_on_a_large_image_need_less_than_200_mebibytes():
    """A tensor (R, M, K) would have 3.3 GiB, the overlaps with all boxes at once take 300 MiB."""
    model = tiny_autoassign(num_levels=5, num_classes=80)
    sizes = [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]  # of 800 x 1344
    features = [torch.randn(1, 16, *size) for size in sizes]
    outputs, _ = model.head.run(features)
    dense = model.dense_pass(features, outputs, [(800, 1344)])
    assert sum(dense.num_predictions) == 22400
    low = torch.rand(500, 2) * torch.tensor([1100.0, 600.0])
    boxes = torch.cat((low, low + 20 + 200 * torch.rand(500, 2)), dim=1)
    truth = [instances((800, 1344), boxes.tolist(), torch.randint(0, 80, (500,)).tolist())]

    def step() -> None:
        losses = model.losses(dense, model.targets(dense, truth))
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()

    assert 10 < peak_of_tensors(step) / 2**20 < 200


def test_the_head_is_initialised_as_the_paper_says():
    head = AutoAssignHead(
        input_shape=[ShapeSpec(channels=16)] * 3, num_classes=NUM_CLASSES, conv_dims=[32]
    )
    assert head.cls_score.bias.sigmoid().tolist() == pytest.approx([0.02] * NUM_CLASSES)
    assert head.bbox_pred.bias.tolist() == [4.0] * 4
    assert [scale.scale.item() for scale in head.scales] == [1.0] * 3
    assert head.cls_subnet[1].num_groups == 32 and head.cls_subnet[0].bias is not None
    names = {name for name, _ in head.named_parameters() if "subnet" not in name}
    parts = {f"{n}.{p}" for n in ("cls_score", "bbox_pred", "ctrness") for p in ("weight", "bias")}
    scales = {f"scales.{level}.scale" for level in range(3)}
    assert names == parts | scales | {"center_prior.mean", "center_prior.sigma"}


def test_objectness_is_predicted_from_the_box_tower():
    head = tiny_autoassign().head
    outputs, taps = head.run([torch.randn(1, 16, 4, 4) for _ in range(3)], [("bbox", 2)])
    assert torch.equal(outputs.quality[0], head.ctrness(taps["bbox", 2][0]))
    assert head.quality_kind == "objectness"


def test_points_are_the_corners_of_cells_and_boxes_are_in_strides_from_them():
    model = tiny_autoassign()
    dense = model.run(model.preprocess_image(batch("usual")[:1]))
    # Row 1, column 2 of stride 16: a square of 16 around (32, 16). The map is 4 x 6.
    assert dense.priors[1][8].tolist() == [24, 8, 40, 24]
    dense.deltas[1].data[0, 8] = torch.tensor([1.0, -0.5, 2.0, 0.25])
    assert dense.boxes[1][0, 8].tolist() == [16, 16, 64, 20]  # a negative distance is 0


def test_objectness_multiplies_scores_after_they_are_selected():
    model = tiny_autoassign(test_score_thresh=0.2)
    dense = model.run(model.preprocess_image(batch("usual")[:1]))
    for maps in (dense.logits, dense.quality):
        for tensor in maps:
            tensor.data.fill_(-20.0)
    for index, logit in ((0, -4.0), (64, 2.0)):
        dense.logits[0].data[0, index, 1] = 0.0
        dense.quality[0].data[0, index] = logit
        dense.deltas[0].data[0, index] = 4.0
    found = model.inference(dense)[0]
    expected = [0.5 / (1 + math.exp(-2)), 0.5 / (1 + math.exp(4))]
    assert found.scores.tolist() == pytest.approx(expected)  # the second is below the threshold
    # Index 64 is row 5 and column 4 of 12: 32 pixels around (32, 40), clipped to 64 x 96.
    assert found.pred_boxes.tensor.tolist() == [[0, 8, 64, 64], [0, 0, 32, 32]]


ARGUMENTS = {"num_classes": NUM_CLASSES, "pixel_mean": [0.0] * 3, "pixel_std": [1.0] * 3}


def test_a_detector_refuses_a_quality_branch_that_it_cannot_train():
    model, other = tiny_autoassign(), tiny_atss()
    message = "quality branch 'objectness': expected"
    with pytest.raises(ValueError, match=rf"{message} one of \('centerness', 'iou'\)"):
        ATSS(backbone=other.backbone, head=model.head, **ARGUMENTS)
    with pytest.raises(ValueError, match=rf"{message} 'centerness'"):
        FCOS(backbone=other.backbone, head=model.head, **ARGUMENTS)
    with pytest.raises(ValueError, match="quality branch 'iou': expected 'centerness'"):
        iou = tiny_atss(head={"quality": "iou"}).head
        FCOS(backbone=other.backbone, head=iou, **ARGUMENTS)
    shapes = [ShapeSpec(channels=16)] * 3
    head = ATSSHead(
        input_shape=shapes, num_classes=4, conv_dims=[16], norm="", quality="objectness"
    )
    with pytest.raises(ValueError, match=message):
        ATSS(backbone=other.backbone, head=head, **ARGUMENTS)
    with pytest.raises(TypeError, match="head is a FCOSHead, expected an AutoAssignHead"):
        AutoAssign(backbone=other.backbone, head=tiny_fcos().head, **ARGUMENTS)


def test_targets_without_ground_truth_are_refused():
    model = tiny_autoassign()
    dense, targets = pass_and_targets(model, batch("usual"))
    plain = Targets(targets.labels, targets.boxes, NUM_CLASSES, targets.normalizer)
    with pytest.raises(TypeError, match="targets is a Targets, expected the AutoAssignTargets"):
        model.losses(dense, plain)


@pytest.mark.parametrize("option", ["loss_normalizer", "loss_normalizer_momentum"])
def test_a_moving_average_of_the_normalizer_is_refused(option: str):
    with pytest.raises(TypeError, match=option):
        tiny_autoassign(**{option: 0.9})
