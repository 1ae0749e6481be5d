"""TID: its loss by hand, its masks, and training steps of several detectors."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch

from dense_kd import TID, DistillationError
from dense_kd.methods.base import objects
from dense_kd.methods.base.adapters import WidthAdapters
from dense_kd.methods.tid import task_integration
from dense_kd.outputs import DensePass, Targets
from helpers.builders import (
    CASES,
    batch,
    instances,
    nine_anchor_retinanet,
    tiny_atss,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)
from helpers.feature_cases import distill
from helpers.ld_reference import make_step

DETECTORS = {
    "retinanet": nine_anchor_retinanet,
    "fcos": tiny_fcos,
    "atss": tiny_atss,
    "gfl": tiny_gfl,
}
SIDES = (4, 2)
"""Of the levels, at strides 8 and 16: images of 32 x 32 pixels."""


def make_pass(seed: int, *, num_anchors: int = 1, channels: int = 3) -> DensePass:
    """Two images, two levels, two classes, random features and predictions."""
    generator = torch.Generator().manual_seed(seed)
    features, logits, boxes, priors = [], [], [], []
    for side, stride in zip(SIDES, (8, 16)):
        count = side * side * num_anchors
        features.append(torch.randn(2, channels, side, side, generator=generator))
        logits.append(torch.randn(2, count, 2, generator=generator))
        low = 20 * torch.rand(2, count, 2, generator=generator)
        size = 12 * torch.rand(2, count, 2, generator=generator)
        boxes.append(torch.cat((low, low + size), dim=2))
        line = stride * (torch.arange(side) + 0.5)
        y, x = torch.meshgrid(line, line, indexing="ij")
        centers = torch.stack((x, y), dim=2).view(-1, 1, 2).expand(-1, num_anchors, 2).flatten(0, 1)
        priors.append(torch.cat((centers - 4 * stride, centers + 4 * stride), dim=1))
    return DensePass(
        features=features,
        logits=logits,
        deltas=boxes,
        priors=priors,
        strides=[8, 16],
        num_anchors=num_anchors,
        image_sizes=[(32, 32), (32, 16)],
        decode=lambda deltas, priors: deltas,
    )


TRUTH = [
    instances((32, 32), [[2, 2, 14, 14], [8, 10, 30, 28]], [0, 1]),
    instances((32, 16), [[0, 4, 10, 20]], [1]),
]


def method(adapt: bool = False, **options) -> TID:
    """Without detectors, so without adapters, unless ``adapt``."""
    tid = TID(**options)
    tid.adapters = WidthAdapters(len(SIDES), 3, 3, always=adapt)
    return tid


def run(tid: TID, student: DensePass, teacher: DensePass, truth=TRUTH) -> torch.Tensor:
    targets = Targets(torch.zeros(2, 1), torch.zeros(2, 1, 4), 2, torch.tensor(1.0))
    losses = tid(student, teacher, make_step(targets, truth))
    assert list(losses) == ["loss_feature"]
    return losses["loss_feature"]


def test_eq_12_is_a_weighted_mean_of_squared_differences_per_image():
    student, teacher = make_pass(0), make_pass(1)
    tid = method(weight=0.5, padding_multiple=16)
    weights = tid.weights(student, teacher, TRUTH)
    expected = 0.0
    for image in range(2):
        total, point = 0.0, 0
        for ours, theirs, side in zip(student.features, teacher.features, SIDES):
            for row in range(side):
                for column in range(side):
                    difference = theirs[image, :, row, column] - ours[image, :, row, column]
                    total += weights[image, point].item() * (difference**2).sum().item()
                    point += 1
        expected += total / (3 * max(1.0, weights[image].sum().item()))
    assert expected > 0
    assert run(tid, student, teacher).item() == pytest.approx(0.5 * expected / 2, rel=1e-5)


def test_weights_are_those_of_a_case_worked_by_hand():
    """A 16 x 16 object in the corner of one image. On level 0 it has four points, at 4 and 12; the
    only one of level 1 is at 8, the other three are 8 from it, half of their stride of 16.

    The teacher finds it at (4, 4) of level 0, where it also has the best score. Of 20 points one
    is best and one is weak: 2 * 1.5 * 1.5. The others in it have 0.4, which is medium. Around it
    points of level 0 are at a distance of 4 of 8 (0.4 * 0.5), or 4 and 4 at a corner.
    """
    student, teacher = make_pass(0), make_pass(1)
    for dense in (student, teacher):
        dense.image_sizes = [(32, 32)] * 2
        dense.logits = [torch.full_like(x, -5.0) for x in dense.logits]
        dense.deltas = [torch.full_like(x, 30.0) for x in dense.deltas]  # empty boxes
    teacher.deltas[0][0, 0] = torch.tensor([0.0, 0.0, 16.0, 16.0])
    teacher.logits[0][0, 0, 1] = 2.0
    student.logits[0][0, 0, 1] = 1.0
    truth = [instances((32, 32), [[0, 0, 16, 16]], [1]), instances((32, 32), [], [])]
    found = method().weights(student, teacher, truth)
    inside, side, corner = 0.7 * 0.4, 0.7 * 0.4 * 0.5, 0.7 * 0.4 * (1 - 0.5 * 2**0.5)
    level_0 = [
        [2 * 1.5 * 1.5, inside, side, 0],
        [inside, inside, side, 0],
        [side, side, corner, 0],
        [0, 0, 0, 0],
    ]
    level_1 = [[inside, side], [side, corner]]
    expected = [x for row in level_0 + level_1 for x in row]
    assert found[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert found[1].tolist() == [0.0] * 20


def test_points_in_the_padding_weigh_nothing_and_are_not_counted():
    student, teacher = make_pass(0), make_pass(1)
    tid = method(padding_multiple=16)
    weights = tid.weights(student, teacher, TRUTH)  # the second image is 16 pixels wide
    inside = torch.tensor([True, True, False, False] * 4 + [True, False] * 2)
    assert (weights[1, ~inside] == 0).all() and (weights[1, inside] > 0).any()
    for dense in (student, teacher):
        for logits in dense.logits:
            columns = logits[1].unflatten(0, (int(len(logits[1]) ** 0.5), -1))
            columns[:, columns.shape[1] // 2 :] = 9.0  # would be the best scores
    assert torch.equal(tid.weights(student, teacher, TRUTH)[1], weights[1])


@pytest.mark.parametrize("num_anchors", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tasks": "cls"},
        {"tasks": "loc"},
        {"areas": "key"},
        {"areas": "weak"},
        {"loc_score": "atss"},
        {"loc_score": "iou"},
        {"combine": "sum"},
        {"cls_part": 0.1},
        {"gamma": 0.3},
        {"gamma_key": True},
        {"nms_thresh": None},
        {"vicinity": "increasing"},
        {"vicinity_width": 1.0},
        {"positive_thresh": 0.1, "negative_thresh": 0.05},
    ],
)
def test_every_option_changes_the_weights_and_keeps_them_finite(options: dict, num_anchors: int):
    passes = make_pass(0, num_anchors=num_anchors), make_pass(1, num_anchors=num_anchors)
    # So many that several points per object are weak, and not all.
    usual = {"cls_part": 0.5, "gamma": 0.15, "nms_thresh": 0.0}
    if options.get("areas") == "key":
        usual = {"cls_part": 0.5}
    if options.get("tasks") == "loc":
        del usual["cls_part"]
    usual, found = (
        method(**given).weights(*passes, TRUTH) for given in (usual, {**usual, **options})
    )
    assert torch.equal(found, usual) == (not options)
    assert found.isfinite().all() and (found >= 0).all() and not found.requires_grad


def test_student_and_teacher_may_have_other_numbers_of_anchors():
    weights = method().weights(make_pass(0), make_pass(1, num_anchors=3), TRUTH)
    assert weights.shape == (2, 20) and (weights > 0).any()


def test_atss_thresholds_are_the_mean_plus_the_deviation_of_near_anchors():
    student = make_pass(0)
    tid = method(loc_score="atss")
    everywhere = torch.ones(20, dtype=torch.bool)
    positive, negative = tid._thresholds(student, TRUTH[0].gt_boxes.tensor, everywhere)
    for index, box in enumerate(TRUTH[0].gt_boxes.tensor):
        center = (box[:2] + box[2:]) / 2
        overlaps = []
        for anchors in student.priors:
            distance = ((anchors[:, :2] + anchors[:, 2:]) / 2 - center).norm(dim=1)
            for anchor in anchors[distance.argsort()[:9]].tolist():
                width, height = (
                    min(anchor[i + 2], box[i + 2].item()) - max(anchor[i], box[i].item())
                    for i in range(2)
                )
                area = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (anchor, box.tolist()))
                overlaps.append(width * height / (area - width * height))
        mean = sum(overlaps) / len(overlaps)
        deviation = (sum((x - mean) ** 2 for x in overlaps) / (len(overlaps) - 1)) ** 0.5
        assert positive[index].item() == pytest.approx(mean + deviation, rel=1e-4)
        assert negative[index].item() == pytest.approx((mean + deviation) / 2, rel=1e-4)


def test_a_single_anchor_has_no_deviation_and_the_usual_thresholds_hold():
    student = make_pass(0)
    student.priors = [student.priors[0][:1]]
    tid, boxes = method(loc_score="atss"), TRUTH[0].gt_boxes.tensor
    found = tid._thresholds(student, boxes, torch.ones(1, dtype=torch.bool))
    assert [x.tolist() for x in found] == [[0.5, 0.5], [0.25, 0.25]]


def test_gradients_go_to_features_and_adapters_only():
    student, teacher = make_pass(0), make_pass(1)
    ours = [x.requires_grad_() for x in student.features]
    others = student.logits + student.deltas + teacher.features + teacher.logits + teacher.deltas
    for tensor in others:
        tensor.requires_grad_()
    tid = method(adapt=True)
    loss = run(tid, student, teacher)
    parameters = list(tid.parameters())
    found = torch.autograd.grad(loss, ours + parameters + others, allow_unused=True)
    assert all(g.abs().max() > 0 for g in found[: len(ours + parameters)])
    assert all(g is None for g in found[len(ours + parameters) :])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": "all"}, "tasks='all': expected one of"),
        ({"areas": "all"}, "areas='all': expected one of"),
        ({"loc_score": "giou"}, "loc_score='giou': expected one of"),
        ({"combine": "mean"}, "combine='mean': expected one of"),
        ({"vicinity": "flat"}, "vicinity='flat': expected one of"),
        ({"weight": 0.0}, "weight=0.0: expected a number above 0"),
        ({"normalize": "student"}, "normalize='student': expected one of"),
        ({"cls_part": 0.0}, "cls_part=0.0: expected a part"),
        ({"gamma": 0.0}, "gamma=0.0: expected a part"),
        ({"gamma": 2.5}, "gamma=2.5: expected a part"),
        ({"positive_thresh": 0.3}, "negative_thresh=0.4 and positive_thresh=0.3"),
        ({"nms_thresh": 60}, "nms_thresh=60: expected an IoU"),
        ({"vicinity_width": -1.0}, "vicinity_width=-1.0"),
    ],
)
def test_bad_options_say_what_is_expected(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        TID(**options)


@pytest.mark.parametrize(
    ("reason", "options"),
    [
        ("tasks='cls'", {"loc_score": "iou"}),
        ("tasks='cls'", {"combine": "sum"}),
        ("tasks='cls'", {"positive_thresh": 0.6}),
        ("tasks='cls'", {"negative_thresh": 0.3}),
        ("tasks='loc'", {"cls_part": 0.1}),
        ("tasks='loc'", {"combine": "sum"}),
        ("loc_score='iou'", {"positive_thresh": 0.6}),
        ("loc_score='atss'", {"negative_thresh": 0.3}),
        ("areas='weak'", {"gamma_key": True}),
        ("areas='key'", {"nms_thresh": None}),
        ("areas='key'", {"gamma": 0.1}),
    ],
)
def test_an_option_that_others_leave_without_effect_is_refused(reason: str, options: dict):
    name, _, value = reason.partition("=")
    changed, received = next(iter(options.items()))
    with pytest.raises(ValueError, match=f"{changed}={received!r} does nothing with {reason}"):
        TID(**{name: value.strip("'")}, **options)
    default = inspect.signature(TID).parameters[changed].default
    TID(**{name: value.strip("'"), changed: default})


def scaled(dense: DensePass, factor: float, offset: float = 0.0) -> DensePass:
    features = [factor * x + offset for x in dense.features]
    return dataclasses.replace(dense, features=features)


def test_the_loss_grows_with_the_square_of_the_pyramid_unless_it_is_normalised():
    student, teacher = make_pass(0), make_pass(1)
    twice = scaled(student, 2), scaled(teacher, 2)
    plain, normalized = method(), method(normalize="teacher_variance")
    loss = run(plain, student, teacher).item()
    assert run(plain, *twice).item() == pytest.approx(4 * loss, rel=1e-5)
    loss = run(normalized, student, teacher).item()
    assert run(normalized, *twice).item() == pytest.approx(loss, rel=1e-5)
    moved = scaled(student, 1, 3.0), scaled(teacher, 1, 3.0)
    assert run(normalized, *moved).item() == pytest.approx(loss, rel=1e-5)


def test_the_variance_is_that_of_the_teachers_channels_over_the_points_of_each_image():
    student, teacher = make_pass(0), make_pass(1)
    plain, normalized = method(), method(normalize="teacher_variance")
    only = [TRUTH[0], instances((32, 16), [], [])], [instances((32, 32), [], []), TRUTH[1]]
    variances = [
        (run(plain, student, teacher, truth) / run(normalized, student, teacher, truth)).item()
        for truth in only
    ]
    points = [torch.cat([x[i].flatten(1) for x in teacher.features], dim=1) for i in range(2)]
    assert variances[0] == pytest.approx(points[0].var(dim=1, correction=0).mean().item(), rel=1e-5)
    # Rounded up to a multiple of 32 the second image has no padding, to one of 16 half of it has.
    assert variances[1] == pytest.approx(points[1].var(dim=1, correction=0).mean().item(), rel=1e-5)
    halves = [x[..., : x.shape[-1] // 2] for x in teacher.features]
    half = torch.cat([x[1].flatten(1) for x in halves], dim=1)
    plain, normalized = (
        method(padding_multiple=16, normalize=x) for x in ("none", "teacher_variance")
    )
    found = run(plain, student, teacher, only[1]) / run(normalized, student, teacher, only[1])
    assert found.item() == pytest.approx(half.var(dim=1, correction=0).mean().item(), rel=1e-5)


def test_a_teacher_of_constant_features_keeps_the_normalised_loss_finite():
    student, teacher = make_pass(0), scaled(make_pass(1), 0.0, 1.0)
    assert run(method(normalize="teacher_variance"), student, teacher).isfinite()


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("case", CASES)
def test_a_step_trains_backbone_and_adapters_and_never_the_teacher(name: str, case: str):
    torch.manual_seed(0)
    student, teacher = DETECTORS[name](seed=0), DETECTORS[name](seed=1)
    model = distill(student, teacher, tid=TID())
    loss = model(batch(case))["kd_tid_loss_feature"]
    assert loss.isfinite() and loss.requires_grad and (loss > 0) == (case != "all empty")
    loss.backward()
    for key, parameter in student.named_parameters():
        if parameter.requires_grad:
            assert (parameter.grad is None) == key.startswith("head."), key
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.kd.parameters())
    assert len(list(model.kd.parameters())) == 6  # weight and bias of three levels
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize(
    ("student", "teacher"), [(tiny_gfl, tiny_retinanet), (tiny_retinanet, tiny_fcos)]
)
def test_heads_of_other_kinds_and_widths_teach(student, teacher):
    model = distill(student(), teacher(seed=1, channels=24), tid=TID())
    assert model(batch())["kd_tid_loss_feature"] > 0


def test_adapters_are_saved_with_the_run_and_are_not_part_of_the_student():
    student = tiny_gfl()
    model = distill(student, tiny_gfl(seed=1, channels=24), tid=TID())
    extra = set(model.state_dict()) - set(student.state_dict())
    assert extra == {f"kd.tid.adapters.{i}.{x}" for i in range(3) for x in ("weight", "bias")}
    bare = tiny_gfl(seed=2)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("kd.")}
    bare.load_state_dict(state)


def test_objects_of_classes_that_the_teacher_does_not_know_are_left_out():
    inputs = batch()
    classes = [c for x in inputs for c in x["instances"].gt_classes.tolist()]
    torch.manual_seed(0)
    model = distill(tiny_gfl(), tiny_gfl(seed=1, num_classes=1), tid=TID(class_map={0: classes[0]}))
    assert model(inputs)["kd_tid_loss_feature"] > 0
    for x in inputs:
        x["instances"].gt_classes.fill_((classes[0] + 1) % 4)
    assert model(inputs)["kd_tid_loss_feature"] == 0


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (
            tiny_fcos,
            lambda: tiny_fcos(num_levels=5),
            "the student has level strides",
        ),
        (tiny_fcos, lambda: tiny_fcos(num_classes=3), "num_classes=4 and the teacher 3"),
    ],
)
def test_detectors_that_cannot_be_compared_are_refused(student, teacher, message: str):
    with pytest.raises(DistillationError, match=message):
        distill(student(), teacher(), tid=TID())


def test_five_hundred_objects_do_not_take_memory_for_all_pairs(monkeypatch):
    """The pairs of predictions and objects are compared in parts."""
    largest, original = 0, task_integration.elementwise_iou

    def iou(boxes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        overlaps = original(boxes, targets)
        largest = max(largest, overlaps.numel())
        return overlaps

    monkeypatch.setattr(task_integration, "elementwise_iou", iou)
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(1000, 9, 4, generator=generator).sort(dim=2).values
    gt_boxes = torch.rand(500, 4, generator=generator).sort(dim=1).values
    monkeypatch.setattr(objects, "PAIRS_AT_ONCE", 100_000)
    found = task_integration.point_predictions(
        torch.zeros(1000, 9, 2), boxes, gt_boxes, torch.zeros(500, dtype=torch.int64)
    )
    assert found.overlaps.max() > 0.5
    assert 9000 <= largest <= 100_000
