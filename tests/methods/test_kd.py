"""Plain prediction mimicking: its formulas by hand, what BCKD says of it, and its edge cases."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou

from dense_kd import KD, DistillationError
from dense_kd.detectors import DenseDetector, DistanceCoder
from dense_kd.losses import binary_divergence
from dense_kd.outputs import DensePass, Targets
from helpers.builders import (
    CASES,
    batch,
    tiny_atss,
    tiny_distribution_retinanet,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)
from helpers.feature_cases import distill
from helpers.ld_reference import make_step

SIZES = (6, 4)
DETECTORS = {
    "retinanet": tiny_retinanet,
    "fcos": tiny_fcos,
    "atss": tiny_atss,
    "gfl": tiny_gfl,
    "distributions": tiny_distribution_retinanet,
}


class Case:
    """Two images, levels of 6 and 4 predictions, 3 classes, 5 bins; divisor 7."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.logits, self.teacher_logits = 2 * torch.randn(2, 2, 10, 3, generator=generator)
        self.bins, self.teacher_bins = 2 * torch.randn(2, 2, 10, 4, 5, generator=generator)
        low = 20 * torch.rand(2, 2, 10, 2, generator=generator)
        size = 4 + 20 * torch.rand(2, 2, 10, 2, generator=generator)
        self.boxes, self.teacher_boxes = torch.cat((low, low + size), dim=-1)
        self.labels = torch.full((2, 10), 3)
        self.labels[0, 1], self.labels[0, 4], self.labels[1, 7] = 0, 2, 1
        self.labels[1, 5] = -1

    def dense(self, logits: Tensor, boxes: Tensor, bins: Tensor, num_anchors: int = 1) -> DensePass:
        sizes = [size * num_anchors for size in SIZES]
        return DensePass(
            features=[],
            logits=list(logits.split(sizes, dim=1)),
            deltas=list(boxes.split(sizes, dim=1)),  # so that codes are boxes
            priors=[torch.zeros(size, 4) for size in sizes],
            strides=[8, 16],
            num_anchors=num_anchors,
            image_sizes=[(64, 64)] * 2,
            decode=lambda deltas, priors: deltas,
            distribution=list(bins.split(sizes, dim=1)),
        )

    def losses(self, **options) -> dict[str, Tensor]:
        return KD(**options)(
            self.dense(self.logits, self.boxes, self.bins),
            self.dense(self.teacher_logits, self.teacher_boxes, self.teacher_bins),
            self.step(),
        )

    def step(self):
        targets = Targets(self.labels, torch.zeros(2, 10, 4), 3, torch.tensor(7.0))
        return make_step(targets, [])

    def selected(self, region: str) -> list[tuple[int, int, float]]:
        """(image, prediction, weight)"""
        if region == "positives":
            return [(0, 1, 1.0), (0, 4, 1.0), (1, 7, 1.0)]
        weights = self.teacher_logits.sigmoid().amax(dim=2)
        return [
            (n, i, weights[n, i].item())
            for n in range(2)
            for i in range(10)
            if self.labels[n, i] != -1
        ]


def softmax(logits: Tensor, temperature: float) -> list[float]:
    exponentials = [math.exp(x / temperature) for x in logits.tolist()]
    return [x / sum(exponentials) for x in exponentials]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q))


@pytest.mark.parametrize("region", ["all", "positives"])
@pytest.mark.parametrize("cls_loss", ["binary", "softmax"])
def test_the_class_term_is_its_formula(region: str, cls_loss: str):
    case, expected, temperature = Case(), 0.0, 1.5
    for n, i, weight in case.selected(region):
        s, t = case.logits[n, i], case.teacher_logits[n, i]
        if cls_loss == "softmax":
            value = divergence(softmax(t, temperature), softmax(s, temperature))
        else:
            p, q = ((x / temperature).sigmoid().tolist() for x in (t, s))
            value = sum(divergence([a, 1 - a], [b, 1 - b]) for a, b in zip(p, q))
        expected += weight * temperature**2 * value
    for normalize, divisor in (("positives", 7.0), ("none", 1.0)):
        losses = case.losses(
            cls_weight=0.7,
            cls_loss=cls_loss,
            temperature=temperature,
            region=region,
            normalize=normalize,
        )
        assert losses["loss_cls"].item() == pytest.approx(0.7 * expected / divisor, rel=1e-5)


@pytest.mark.parametrize("region", ["all", "positives"])
@pytest.mark.parametrize("loc_loss", ["giou", "l1", "kl"])
def test_the_localisation_term_is_its_formula(region: str, loc_loss: str):
    case, expected = Case(), 0.0
    for n, i, weight in case.selected(region):
        ours, theirs = case.boxes[n, i], case.teacher_boxes[n, i]
        if loc_loss == "giou":
            value = 1 - generalized_box_iou(ours[None], theirs[None]).item()
        elif loc_loss == "l1":
            value = sum(abs(a - b) for a, b in zip(ours.tolist(), theirs.tolist())) / 4
        else:
            sides = zip(case.teacher_bins[n, i], case.bins[n, i])
            value = sum(9 * divergence(softmax(t, 3), softmax(s, 3)) for t, s in sides) / 4
        expected += weight * value
    losses = case.losses(loc_weight=0.7, loc_loss=loc_loss, temperature=3.0, region=region)
    assert losses["loss_loc"].item() == pytest.approx(0.7 * expected / 7, rel=1e-5)


def test_softmax_does_not_see_a_constant_that_is_added_to_all_logits_and_binary_does():
    """The inconsistency that BCKD is about: the detector's scores change, the loss does not."""
    case = Case()
    case.teacher_logits = case.logits.clone()
    for cls_loss in ("binary", "softmax"):
        assert case.losses(cls_loss=cls_loss)["loss_cls"] == 0
    case.teacher_logits = case.logits + 2.0
    assert (case.teacher_logits.sigmoid() - case.logits.sigmoid()).abs().max() > 0.4
    assert case.losses(cls_loss="softmax")["loss_cls"].item() == pytest.approx(0, abs=1e-5)
    assert case.losses(cls_loss="binary")["loss_cls"] > 1


@pytest.mark.parametrize("cls_loss", ["binary", "softmax"])
@pytest.mark.parametrize("loc_loss", ["giou", "l1", "kl"])
def test_a_perfect_student_has_no_loss_and_finite_gradients(cls_loss: str, loc_loss: str):
    case = Case()
    case.teacher_logits, case.teacher_boxes, case.teacher_bins = (
        x.clone() for x in (case.logits, case.boxes, case.bins)
    )
    inputs = [x.requires_grad_() for x in (case.logits, case.boxes, case.bins)]
    losses = case.losses(cls_loss=cls_loss, loc_loss=loc_loss)
    assert [loss.item() for loss in losses.values()] == pytest.approx([0, 0], abs=1e-6)
    gradients = torch.autograd.grad(sum(losses.values()), inputs, allow_unused=True)
    assert gradients[0].abs().max() < 1e-6
    assert all(g.isfinite().all() for g in gradients if g is not None)


def test_the_binary_divergence_has_the_gradient_of_the_binary_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits, teacher = 3 * torch.randn(2, 50, generator=generator)
    logits.requires_grad_(), teacher.requires_grad_()
    found = torch.autograd.grad(
        binary_divergence(logits, teacher).sum(), (logits, teacher), allow_unused=True
    )
    torch.testing.assert_close(found[0], logits.sigmoid() - teacher.sigmoid(), rtol=1e-4, atol=1e-6)
    assert found[1] is None
    assert (binary_divergence(logits, teacher) >= -1e-6).all()


@pytest.mark.parametrize("loc_loss", ["giou", "l1", "kl"])
def test_gradients_go_to_the_student_and_not_through_weights_or_to_the_teacher(loc_loss: str):
    case = Case()
    inputs = [x.requires_grad_() for x in (case.logits, case.boxes, case.bins)]
    of_teacher = (case.teacher_logits, case.teacher_boxes, case.teacher_bins)
    inputs += [x.requires_grad_() for x in of_teacher]
    losses = case.losses(loc_loss=loc_loss)
    localisation = [False, loc_loss != "kl", loc_loss == "kl"]
    for term, reached in (("loss_cls", [True, False, False]), ("loss_loc", localisation)):
        found = torch.autograd.grad(losses[term], inputs, allow_unused=True, retain_graph=True)
        assert [g is not None for g in found] == reached + [False] * 3, term


@pytest.mark.parametrize("weight, term", [("cls_weight", "loss_loc"), ("loc_weight", "loss_cls")])
def test_a_term_with_weight_zero_is_left_out(weight: str, term: str):
    assert set(Case().losses(**{weight: 0.0})) == {term}


def test_with_the_best_anchor_the_student_mimics_the_one_with_the_best_score():
    case = Case()
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(2, 30, 3, generator=generator)
    low = 20 * torch.rand(2, 30, 2, generator=generator)
    boxes = torch.cat((low, low + 10), dim=2)
    student = case.dense(case.logits, case.boxes, case.bins)
    teacher = case.dense(logits, boxes, torch.zeros(2, 30, 4, 5), num_anchors=3)
    found = KD(anchors="best")(student, teacher, case.step())
    for n in range(2):
        for i in range(10):
            anchors = range(3 * i, 3 * i + 3)  # of the location, on either level
            best = max(anchors, key=lambda a: logits[n, a].max().item())
            case.teacher_logits[n, i], case.teacher_boxes[n, i] = logits[n, best], boxes[n, best]
    expected = case.losses()
    for term, loss in expected.items():
        assert found[term].item() == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cls_loss": "focal"}, "cls_loss='focal': expected one of"),
        ({"loc_loss": "iou"}, "loc_loss='iou': expected one of"),
        ({"region": "background"}, "region='background': expected one of"),
        ({"normalize": "mean"}, "normalize='mean': expected one of"),
        ({"anchors": "worst"}, "anchors='worst': expected one of"),
        ({"anchors": "best", "loc_loss": "l1"}, "set loc_loss='giou'"),
        ({"temperature": 0.0}, "temperature=0.0: expected a number above 0"),
        ({"cls_weight": -1.0}, "cls_weight=-1.0"),
        ({"cls_weight": 0.0, "loc_weight": 0.0}, "one above it"),
    ],
)
def test_bad_options_say_what_is_expected(options, message):
    with pytest.raises(ValueError, match=message):
        KD(**options)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("region", ["all", "positives"])
def test_gradients_reach_the_whole_student_and_never_the_teacher(name, case, region):
    student, teacher = DETECTORS[name](seed=0), DETECTORS[name](seed=1)
    loc_loss = "kl" if student.predicts_distribution else "l1"
    model = distill(student, teacher, kd=KD(region=region, loc_loss=loc_loss))
    losses = {k: v for k, v in model(batch(case)).items() if k.startswith("kd_")}
    assert list(losses) == ["kd_kd_loss_cls", "kd_kd_loss_loc"]
    for loss in losses.values():
        assert loss.isfinite() and loss.requires_grad
        assert (loss > 0) == (case != "all empty" or region == "all")
    sum(losses.values()).backward()
    for key, parameter in student.named_parameters():
        quality = "ctrness" in key  # the centreness branch is not distilled
        if parameter.requires_grad:
            assert (parameter.grad is None) == quality, key
            assert quality or parameter.grad.isfinite().all()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize(
    "student, teacher", [(tiny_gfl, tiny_retinanet), (tiny_gfl, tiny_atss), (tiny_fcos, tiny_gfl)]
)
def test_heads_with_other_anchors_teach_by_the_best_one(student, teacher):
    losses = distill(student(), teacher(seed=1), kd=KD(anchors="best"))(batch("usual"))
    assert losses["kd_kd_loss_cls"] > 0 and losses["kd_kd_loss_loc"] > 0


def exponential_fcos() -> DenseDetector:
    return tiny_fcos(box2box_transform=DistanceCoder(activation="exp"))


@pytest.mark.parametrize(
    "student, teacher, options, message",
    [
        (tiny_gfl, tiny_retinanet, {}, "the student has anchors per location 1 and the teacher 6"),
        (tiny_retinanet, tiny_gfl, {"anchors": "best"}, "has 6 anchors per location, expected 1"),
        (
            tiny_gfl,
            lambda: tiny_gfl(num_levels=5),
            {"anchors": "best"},
            r"strides \[8, 16, 32\] and the teacher \[8, 16, 32, 64, 128\]",
        ),
        (tiny_atss, tiny_atss, {"loc_loss": "kl"}, "the student's ATSS predicts none"),
        (tiny_atss, tiny_gfl, {"loc_loss": "l1"}, "decode equal codes to different boxes"),
        (tiny_fcos, exponential_fcos, {"loc_loss": "l1"}, "decode equal codes"),
        (tiny_fcos, lambda: tiny_fcos(num_classes=3), {}, "num_classes=4 and the teacher 3"),
    ],
)
def test_detectors_that_cannot_be_compared_are_refused(student, teacher, options, message):
    with pytest.raises(DistillationError, match=message):
        distill(student(), teacher(), kd=KD(**options))


def test_boxes_in_other_codes_and_classes_that_correspond_can_be_mimicked():
    model = distill(tiny_atss(), tiny_gfl(seed=1, num_classes=3), kd=KD(class_map={2: 0, 0: 3}))
    losses = model(batch("usual"))
    assert losses["kd_kd_loss_cls"] > 0 and losses["kd_kd_loss_loc"] > 0
    teacher = model.teacher.model
    same = distill(model.student, teacher, kd=KD(class_map={2: 0, 0: 3}, loc_weight=0.0))
    gradient = torch.autograd.grad(
        same(batch("usual"))["kd_kd_loss_cls"], model.student.head.cls_score.bias
    )[0]
    assert (gradient != 0).tolist() == [True, False, False, True]
