"""The imitation baselines: masks and losses by hand, and training steps of several detectors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from dense_kd import (
    FGFI,
    FRS,
    DeFeat,
    DistillationError,
    FitNet,
    GIBox,
    KDMethod,
)
from dense_kd.methods.base import objects
from dense_kd.methods.base.adapters import WidthAdapters
from dense_kd.methods.imitation.masks import (
    best_apart,
    box_masks,
    disagreement_masks,
    near_object_masks,
    object_levels,
    object_masks,
)
from dense_kd.outputs import DensePass, Targets
from helpers.builders import (
    CASES,
    batch,
    instances,
    nine_anchor_retinanet,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)
from helpers.feature_cases import SIDES, distill, make_pass
from helpers.ld_reference import make_step

DETECTORS = {"retinanet": nine_anchor_retinanet, "fcos": tiny_fcos, "gfl": tiny_gfl}
METHODS = {"fitnet": FitNet, "gibox": GIBox, "fgfi": FGFI, "defeat": DeFeat, "frs": FRS}
NO_BOXES = torch.zeros(0, 4)


# In the first image: in the upper left cell of level 0 and level 1; nothing in the second.
TRUTH = [instances((16, 16), [[0, 0, 9, 7]], [1]), instances((16, 16), [], [])]

NO_LABELS = torch.zeros(2, 1)


def losses(
    method: KDMethod, student: DensePass, teacher: DensePass, labels: Tensor = NO_LABELS
) -> dict[str, Tensor]:
    method.adapters = WidthAdapters(2, 3, 3)
    targets = Targets(labels, torch.zeros(2, 1, 4), 2, torch.tensor(1.0))
    return method(student, teacher, make_step(targets, TRUTH))


def cell_errors(student: DensePass, teacher: DensePass) -> dict:
    """{(level, image, cell): sum over the channels of the squared difference}"""
    return {
        (level, image, cell): sum(
            (theirs[image, c].flatten()[cell] - ours[image, c].flatten()[cell]).item() ** 2
            for c in range(3)
        )
        for level, (ours, theirs) in enumerate(zip(student.features, teacher.features))
        for image in range(2)
        for cell in range(SIDES[level] ** 2)
    }


def as_lists(masks: list[Tensor]) -> list[list[int]]:
    return [mask.int().tolist() for mask in masks]


def test_cells_in_objects_are_those_whose_centre_is_in_one():
    priors = make_pass(0, num_anchors=3).priors
    assert as_lists(object_masks(priors, 3, torch.tensor([[0.0, 0, 9, 7]]))) == [[1, 0, 0, 0], [0]]
    assert as_lists(object_masks(priors, 3, torch.tensor([[3.0, 3, 9, 13]]))) == [[1, 0, 1, 0], [1]]
    assert as_lists(object_masks(priors, 3, NO_BOXES)) == [[0] * 4, [0]]


def test_fgfi_takes_anchors_above_half_of_the_best_overlap_of_their_level(monkeypatch):
    """Anchors are cells. The first object is one, the second overlaps two lower ones alike."""
    priors = make_pass(0).priors
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [4.0, 8.0, 12.0, 16.0]])
    assert as_lists(near_object_masks(priors, 1, boxes[:1])) == [[1, 0, 0, 0], [1]]
    assert as_lists(near_object_masks(priors, 1, boxes)) == [[1, 0, 1, 1], [1]]
    wide = torch.tensor([[0.0, 0.0, 12.0, 8.0]])  # IoU 64/96 and 32/128
    assert as_lists(near_object_masks(priors, 1, wide)) == [[1, 0, 0, 0], [1]]
    assert as_lists(near_object_masks(priors, 1, wide, part=0.3)) == [[1, 1, 0, 0], [1]]
    assert as_lists(near_object_masks(priors, 1, boxes, torch.tensor([1, 0]))) == [[0, 0, 1, 1],
                                                                                  [1]]  # fmt: skip
    assert as_lists(near_object_masks(priors, 1, NO_BOXES)) == [[0] * 4, [0]]
    monkeypatch.setattr(objects, "PAIRS_AT_ONCE", 1)
    assert as_lists(near_object_masks(priors, 1, boxes)) == [[1, 0, 1, 1], [1]]


def test_one_anchor_of_a_cell_is_enough_for_fgfi():
    cell = torch.tensor([[0.0, 0, 8, 8], [0, 0, 4, 4], [8, 0, 16, 8], [8, 0, 12, 4]])
    assert as_lists(near_object_masks([cell], 2, torch.tensor([[8.0, 0, 12, 4]]))) == [[0, 1]]
    overlaps_nothing = torch.tensor([[50.0, 50, 60, 60]])
    assert as_lists(near_object_masks([cell], 2, overlaps_nothing)) == [[0, 0]]


def test_the_level_of_an_object_is_as_large_as_faster_rcnns():
    """At stride 8 objects of 112 to 224 pixels (square root of the area)."""
    sides = [(1, 1), (223, 223), (225, 225), (448 / 2, 448 * 1.9), (449, 449), (5000, 5000)]
    boxes = torch.tensor([[10.0, 10.0, 10.0 + w, 10.0 + h] for w, h in sides])
    assert object_levels(boxes, [8, 16, 32]).tolist() == [0, 0, 1, 1, 2, 2]
    assert object_levels(NO_BOXES, [8, 16]).tolist() == []


def test_defeat_fills_the_cells_from_the_begin_of_an_object_to_before_its_end():
    strides, sizes = [8, 16], [(3, 4), (2, 2)]

    def found(*box: float) -> list[list[int]]:
        return as_lists(box_masks(torch.tensor([box]), strides, sizes))

    assert found(9, 1, 30, 17) == [[0, 1, 1, 0] * 2 + [0] * 4, [0] * 4]  # columns 1:3, rows 0:2
    assert found(9, 9, 15, 15) == [[0] * 5 + [1] + [0] * 6, [0] * 4]  # at least one
    assert found(31, 23, 32, 24) == [[0] * 11 + [1], [0] * 4]  # in the last cell
    assert found(0, 0, 230, 230) == [[0] * 12, [1] * 4]  # large: on the second level
    assert as_lists(box_masks(NO_BOXES, strides, sizes)) == [[0] * 12, [0] * 4]


@pytest.mark.parametrize("nms_thresh", [0.0, 0.3, 1.0])
def test_the_best_boxes_that_are_apart_are_the_first_of_nms(nms_thresh: float):
    generator = torch.Generator().manual_seed(0)
    levels = []
    for size in (40, 7, 1):
        low = 30 * torch.rand(2, size, 2, generator=generator)
        levels.append(torch.cat((low, low + 20 * torch.rand(2, size, 2, generator=generator)), 2))
    for found, boxes in zip(best_apart(levels, 5, nms_thresh), levels):
        for image in range(2):
            kept = nms(boxes[image], -torch.arange(boxes.shape[1]).float(), nms_thresh)[:5]
            assert found[image].nonzero()[:, 0].tolist() == sorted(kept.tolist())


def test_general_instances_disagree_most_and_overlap_little():
    """Predictions 0 and 1 disagree by 0.5 and 0.4 about one box, that of whoever is surer: the
    teacher's for prediction 0 (class 1), the student's for prediction 1."""
    ours = torch.tensor([[0.1, 0.2], [0.6, 0.3], [0.5, 0.5], [0.1, 0.2]]).logit()
    theirs = torch.tensor([[0.2, 0.7], [0.2, 0.4], [0.8, 0.5], [0.1, 0.1]]).logit()
    box, far, other = [0.0, 0, 8, 8], [90.0, 90, 98, 98], [20.0, 20, 28, 28]
    our_boxes = torch.tensor([far, box, far, other])
    their_boxes = torch.tensor([box, far, other, far])
    arguments = ([ours], [theirs], [our_boxes], [their_boxes])
    assert as_lists(disagreement_masks(*arguments, 1, topk=1)) == [[1, 0, 0, 0]]
    assert as_lists(disagreement_masks(*arguments, 1, topk=2)) == [[1, 0, 1, 0]]
    assert as_lists(disagreement_masks(*arguments, 1)) == [[1, 0, 1, 0]]  # 1 and 3 overlap them
    assert as_lists(disagreement_masks(*arguments, 1, nms_thresh=1.0)) == [[1, 1, 1, 1]]
    assert as_lists(disagreement_masks(*arguments, 2, topk=1)) == [[1, 0]]


@pytest.mark.parametrize(
    ("method", "cells"),
    [
        (FitNet(weight=0.5), None),
        (FitNet(weight=0.5, region="objects"), {(0, 0, 0)}),
    ],
)
def test_fitnet_is_the_sum_over_levels_of_means(method: FitNet, cells: set | None):
    student, teacher = make_pass(0), make_pass(1)
    errors, expected = cell_errors(student, teacher), 0.0
    for level in range(2):
        chosen = [e for k, e in errors.items() if k[0] == level and (cells is None or k in cells)]
        expected += sum(chosen) / max(1, 3 * len(chosen))
    found = losses(method, student, teacher)
    assert list(found) == ["loss_feature"]
    assert found["loss_feature"].item() == pytest.approx(0.5 * expected, rel=1e-5)


@pytest.mark.parametrize("num_anchors", [1, 3])
def test_fitnet_of_positives_is_of_cells_with_a_positive_of_any_anchor(num_anchors: int):
    student, teacher = make_pass(0, num_anchors), make_pass(1, num_anchors)
    labels = torch.full((2, 5, num_anchors), 2)  # of four cells and one; 2 is background
    labels[0, 3, -1], labels[1, 3, 0], labels[1, 0] = 1, 0, -1
    found = losses(FitNet(weight=0.5, region="positives"), student, teacher, labels.flatten(1))
    errors = cell_errors(student, teacher)
    expected = (errors[0, 0, 3] + errors[0, 1, 3]) / 6
    assert found["loss_feature"].item() == pytest.approx(0.5 * expected, rel=1e-5)


def test_gibox_is_the_mean_over_the_cells_of_each_image():
    student, teacher = make_pass(0), make_pass(1)
    errors, expected = cell_errors(student, teacher), 0.0
    for level in range(2):
        chosen = []
        for image in range(2):  # with one prediction per level: the largest disagreement
            difference = student.logits[level][image].sigmoid()
            difference = (teacher.logits[level][image].sigmoid() - difference).abs()
            chosen.append(errors[level, image, difference.amax(dim=1).argmax().item()])
        expected += sum(chosen) / (3 * 2)
    found = losses(GIBox(weight=0.5, topk=1), student, teacher)["loss_feature"]
    assert found.item() == pytest.approx(0.5 * expected, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "levels", "divisor"),
    [
        ({}, [0], 6),
        ({"levels": "each"}, [0, 1], 6),
        ({"levels": "each", "normalize": "cells"}, [0, 1], 2),
    ],
)
def test_fgfi_is_the_mean_over_levels_of_half_the_mean_near_objects(options, levels, divisor):
    student, teacher = make_pass(0), make_pass(1)
    errors = cell_errors(student, teacher)
    expected = sum(errors[level, 0, 0] / divisor for level in levels) / 2  # L = 2
    found = losses(FGFI(weight=0.5, **options), student, teacher)["loss_feature"]
    assert found.item() == pytest.approx(0.5 * expected, rel=1e-5)


def test_the_relu_of_fgfi_follows_the_adapter():
    student, teacher = make_pass(0), make_pass(1)
    expected = losses(FGFI(relu=True), student, teacher)["loss_feature"]
    student.features = [feature.relu() for feature in student.features]
    torch.testing.assert_close(losses(FGFI(), student, teacher)["loss_feature"], expected)


def test_defeat_weighs_objects_and_background_apart():
    student, teacher = make_pass(0), make_pass(1)
    errors = cell_errors(student, teacher)
    inside = errors[0, 0, 0]  # columns 0:1, rows 0:1
    outside = sum(e for k, e in errors.items() if k[0] == 0) - inside
    first, second = outside / (2 * 3 * 7), (errors[1, 0, 0] + errors[1, 1, 0]) / (2 * 3 * 2)
    found = losses(DeFeat(), student, teacher)
    assert found["loss_object"].item() == pytest.approx(4 * inside / 6 / 2, rel=1e-5)
    assert found["loss_background"].item() == pytest.approx(16 * (first + second) / 2, rel=1e-5)


@pytest.mark.parametrize("num_anchors", [1, 3])
def test_frs_weighs_cells_with_the_teachers_best_score(num_anchors: int):
    student, teacher = make_pass(0, num_anchors), make_pass(1, num_anchors)
    errors = cell_errors(student, teacher)
    feature = classes = 0.0
    for level in range(2):
        above = entropy_above = below = 0.0
        for image in range(2):
            for cell in range(SIDES[level] ** 2):
                part = slice(cell * num_anchors, (cell + 1) * num_anchors)
                target = teacher.logits[level][image, part].sigmoid().flatten().tolist()
                score = student.logits[level][image, part].sigmoid().flatten().tolist()
                mask = max(target)
                above += mask * errors[level, image, cell]
                entropy_above -= mask * sum(
                    t * math.log(s) + (1 - t) * math.log(1 - s) for t, s in zip(target, score)
                )
                below += mask
        feature, classes = feature + above / below, classes + entropy_above / below
    found = losses(FRS(feature_weight=0.3, cls_weight=0.7), student, teacher)
    assert found["loss_feature"].item() == pytest.approx(0.3 * feature, rel=1e-5)
    assert found["loss_cls"].item() == pytest.approx(0.7 * classes, rel=1e-5)


def test_warm_ups_are_those_of_the_papers():
    assert [FGFI().warmup_factor(i) for i in (0, 399, 400, 10_000)] == [0, 0, 1, 1]
    assert FGFI(warmup_iters=0).warmup_factor(0) == 1
    assert [FRS().warmup_factor(i) for i in (0, 249, 499, 10_000)] == [0.002, 0.5, 1, 1]
    assert all(method().warmup_factor(0) == 1 for method in (FitNet, GIBox, DeFeat))


@pytest.mark.parametrize("name", METHODS)
def test_gradients_go_to_the_students_features_and_adapters_only(name: str):
    student, teacher = make_pass(0), make_pass(1)
    method = METHODS[name]()
    others = student.deltas + teacher.features + teacher.logits + teacher.deltas
    others += [] if name == "frs" else student.logits  # its class term
    inputs = student.features + others
    for tensor in inputs:
        tensor.requires_grad_()
    found = torch.autograd.grad(
        sum(losses(method, student, teacher).values()), inputs, allow_unused=True
    )
    assert found[0].abs().max() > 0
    assert all(gradient is None for gradient in found[2:])


@pytest.mark.parametrize("name", METHODS)
def test_a_perfect_student_has_no_loss_of_features(name: str):
    found = losses(METHODS[name](), make_pass(0), make_pass(0))
    assert all(loss == 0 for term, loss in found.items() if term != "loss_cls")


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (FitNet, {"region": "centres"}, "region='centres': expected one of"),
        (FitNet, {"weight": 0.0}, "weight=0.0: expected a number above 0"),
        (GIBox, {"topk": 0}, "topk=0 and nms_thresh=0.3"),
        (GIBox, {"nms_thresh": 3}, "topk=10 and nms_thresh=3"),
        (FGFI, {"levels": "all"}, "levels='all': expected one of"),
        (FGFI, {"normalize": "none"}, "normalize='none': expected one of"),
        (FGFI, {"part": 1.0}, "part=1.0: expected"),
        (FGFI, {"weight": -1.0}, "weight=-1.0"),
        (DeFeat, {"object_weight": -1.0}, "object_weight=-1.0 and background_weight=16.0"),
        (DeFeat, {"object_weight": 0, "background_weight": 0}, "one above it"),
        (FRS, {"feature_weight": 0, "cls_weight": 0}, "one above it"),
    ],
)
def test_bad_options_say_what_is_expected(method: type, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        method(**options)


@pytest.mark.parametrize(
    ("method", "left"),
    [
        (DeFeat(object_weight=0), {"loss_background"}),
        (DeFeat(background_weight=0), {"loss_object"}),
        (FRS(feature_weight=0), {"loss_cls"}),
        (FRS(cls_weight=0), {"loss_feature"}),
    ],
)
def test_a_term_with_weight_zero_is_left_out(method: KDMethod, left: set):
    assert set(losses(method, make_pass(0), make_pass(1))) == left


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_a_step_trains_backbone_and_adapters_and_never_the_teacher(detector, name, case):
    student, teacher = DETECTORS[detector](seed=0), DETECTORS[detector](seed=1, channels=24)
    model = distill(student, teacher, imitation=METHODS[name](warmup_iters=0))
    found = {k: v for k, v in model(batch(case)).items() if k.startswith("kd_")}
    assert found and all(loss.isfinite() and loss.requires_grad for loss in found.values())
    needs_objects = ("kd_imitation_loss_object",)
    if name == "fgfi":
        needs_objects += ("kd_imitation_loss_feature",)
    for term, loss in found.items():
        assert (loss > 0) == (case != "all empty" or term not in needs_objects), term
    sum(found.values()).backward()
    reached = ("backbone.",) if name != "frs" else ("backbone.", "head.cls")
    for key, parameter in student.named_parameters():
        if parameter.requires_grad:
            assert (parameter.grad is not None) == key.startswith(reached), key
            assert parameter.grad is None or parameter.grad.isfinite().all()
    adapters = list(model.kd.parameters())
    assert len(adapters) == 6 and all(p.grad.isfinite().all() for p in adapters)
    size = 1 if name in ("fitnet", "gibox") else 3
    assert adapters[0].shape == (24, 16, size, size)
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_adapters_are_saved_with_the_run_and_are_not_part_of_the_student(name: str):
    student = tiny_gfl()
    model = distill(student, tiny_gfl(seed=1), imitation=METHODS[name]())
    extra = set(model.state_dict()) - set(student.state_dict())
    keys = {f"kd.imitation.adapters.{i}.{x}" for i in range(3) for x in ("weight", "bias")}
    expected = set() if name in ("fitnet", "gibox") else keys
    assert extra == expected | ({"kd.iteration"} if model.kd.depends_on_iteration else set())
    if name in ("fgfi", "defeat"):  # small at the start, so that the student is not disturbed
        weight = model.state_dict()["kd.imitation.adapters.0.weight"]
        assert weight.std().item() == pytest.approx(1e-4, rel=0.1)


def test_fitnet_and_masks_of_the_truth_take_heads_of_other_kinds_and_classes():
    for name in ("fitnet", "fgfi", "defeat"):
        model = distill(
            tiny_gfl(), tiny_retinanet(seed=1, num_classes=3), imitation=METHODS[name]()
        )
        assert any(key.startswith("kd_") for key in model(batch()))


@pytest.mark.parametrize(
    ("student", "teacher", "method", "message"),
    [
        (tiny_fcos, lambda: tiny_fcos(num_levels=5), FitNet(), "student has level strides"),
        (tiny_gfl, tiny_retinanet, GIBox(), "anchors per location"),
        (tiny_gfl, tiny_retinanet, FRS(), "anchors per location"),
        (tiny_fcos, lambda: tiny_fcos(num_classes=3), GIBox(), "num_classes=4"),
    ],
)
def test_detectors_that_cannot_be_compared_are_refused(student, teacher, method, message: str):
    with pytest.raises(DistillationError, match=message):
        distill(student(), teacher(), imitation=method)
