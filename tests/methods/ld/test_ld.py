"""LD against its original implementation, by hand, and in its edge cases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dense_kd import LD, DistillationError
from dense_kd.losses import kl_divergence
from dense_kd.methods.ld.valuable_region import valuable_region
from dense_kd.outputs import DensePass, Targets
from helpers.builders import (
    CASES,
    NUM_CLASSES,
    assert_close,
    batch,
    golden,
    instances,
    tiny_atss,
    tiny_distribution_retinanet,
    tiny_fcos,
    tiny_gfl,
)
from helpers.feature_cases import distill
from helpers.ld_reference import GFLReference, make_step

TERMS = {"loss_main": "loss_ld", "loss_vlr": "loss_ld_vlr", "loss_cls": "loss_kd"}
DETECTORS = {
    "gfl": tiny_gfl,
    "atss": lambda **kw: tiny_atss(head={"reg_max": 16}, **kw),
    "fcos": lambda **kw: tiny_fcos(head={"reg_max": 16}, **kw),
    "retinanet": tiny_distribution_retinanet,
}
RELEASED = {
    "gfl": {},
    "atss": {"vlr_weight": 0.0375},
    "fcos": {"vlr_region": "inside", "vlr_weighting": "score"},
    "retinanet": {
        "main_weight": 5.0,
        "vlr_weight": 0.15,
        "cls_temperature": 8.0,
        "vlr_excludes_positives": True,
        "joint_softmax": True,
    },
}


# Ten times what was measured: 1.5e-7, 6.3e-7, and 8.4e-7 of the divergence at T = 10.
LOSS_NOISE, GRADIENT_NOISE, DIVERGENCE_NOISE = 2e-6, 7e-6, 9e-6


def released(reference: GFLReference) -> LD:
    """With the weights and temperatures of the stored case."""
    main, vlr, cls = (reference.config[name] for name in ("loss_ld", "loss_ld_vlr", "loss_kd"))
    assert main["T"] == vlr["T"]
    return LD(
        main_weight=main["loss_weight"],
        vlr_weight=vlr["loss_weight"] / 4,  # the code divides by 16 instead of by 4
        cls_weight=float(cls["loss_weight"]),
        loc_temperature=float(main["T"]),
        cls_temperature=float(cls["T"]),
    )


def test_the_defaults_are_those_of_the_original_implementation():
    assert repr(released(GFLReference())) == repr(LD())


def test_the_students_own_losses_are_those_of_the_original_implementation():
    reference = GFLReference()
    losses = reference.detection_losses()
    for ours, theirs in (("loss_cls", "cls"), ("loss_box_reg", "bbox"), ("loss_dfl", "dfl")):
        assert_close(losses[ours], reference.data[f"loss/loss_{theirs}"].sum(), LOSS_NOISE, theirs)
    assert (reference.data["loss/loss_kd_neg"] == 0).all()  # a term that it has and switches off


@pytest.mark.parametrize("term", TERMS)
def test_losses_equal_the_original_implementation(term: str):
    reference = GFLReference()
    losses = released(reference)(reference.student(), reference.teacher(), reference.step())
    assert_close(losses[term], reference.data[f"loss/{TERMS[term]}"].sum(), LOSS_NOISE)


@pytest.mark.parametrize("term", TERMS)
def test_gradients_equal_the_original_implementation(term: str):
    reference = GFLReference()
    losses = released(reference)(reference.student(), reference.teacher(), reference.step())
    maps, name = (reference.cls, "cls") if term == "loss_cls" else (reference.reg, "reg")
    gradients = torch.autograd.grad(losses[term], maps)
    for level, gradient in enumerate(gradients):
        expected = reference.data[f"grad/{TERMS[term]}/stu_{name}/l{level}"]
        found = gradient[: len(expected)]  # the original keeps one image of the first level
        assert_close(found, expected, GRADIENT_NOISE, f"level {level}")


@pytest.mark.parametrize("tag", ["T1_avg", "T2_avg", "T10_avg", "T10_mean"])
def test_the_divergence_gives_mmdetections_loss(tag: str):
    data = golden("losses_mmdet")
    logits = data["dfl_logits"].requires_grad_()
    temperature = int(tag.split("_")[0][1:])
    values = kl_divergence(logits, data["kl_teacher_logits"], temperature) / logits.shape[1]
    loss = 0.25 * (values * data["weight"]).sum() / data["avg_factor"]
    if tag.endswith("mean"):
        loss = values.mean()
    assert_close(loss, data[f"kl_{tag}/loss"], DIVERGENCE_NOISE)
    gradient = torch.autograd.grad(loss, logits)[0]
    assert_close(gradient, data[f"kl_{tag}/grad"], GRADIENT_NOISE)


def divergence(ours: Tensor, theirs: Tensor, temperature: float) -> float:
    """T^2 / B * KL of one distribution of B bins, written out."""
    p = torch.tensor([x / temperature for x in theirs.tolist()]).double().exp()
    q = torch.tensor([x / temperature for x in ours.tolist()]).double().exp()
    p, q = p / p.sum(), q / q.sum()
    return temperature**2 * sum((p * (p / q).log()).tolist()) / len(p)


SIZES = (6, 4)
GT = [[[0.0, 0, 20, 20]], [[10.0, 10, 30, 30]]]


class Case:
    """Two images, levels of 6 and 4 anchors, 3 classes, 5 bins; positives on the first level."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.logits, self.teacher_logits = 2 * torch.randn(2, 2, 10, 3, generator=generator)
        self.bins, self.teacher_bins = 2 * torch.randn(2, 2, 10, 4, 5, generator=generator)
        low = 20 * torch.rand(10, 2, generator=generator)
        self.priors = torch.cat((low, low + 16), dim=1)
        self.labels = torch.full((2, 10), 3)
        self.labels[0, 2], self.labels[0, 4], self.labels[1, 2] = 0, 2, 1
        self.labels[1, 5] = -1

    def dense(self, logits: Tensor, bins: Tensor) -> DensePass:
        return DensePass(
            features=[],
            logits=list(logits.split(SIZES, dim=1)),
            deltas=[],
            priors=list(self.priors.split(SIZES)),
            strides=[8, 16],
            num_anchors=1,
            image_sizes=[(64, 64)] * 2,
            decode=lambda deltas, priors: deltas,
            distribution=list(bins.split(SIZES, dim=1)),
        )

    def losses(self, **options) -> dict[str, Tensor]:
        targets = Targets(self.labels, torch.zeros(2, 10, 4), 3, torch.tensor(7.0))
        truth = [instances((64, 64), boxes, [0]) for boxes in GT]
        return LD(**options)(
            self.dense(self.logits, self.bins),
            self.dense(self.teacher_logits, self.teacher_bins),
            make_step(targets, truth),
        )

    def positives(self) -> list[tuple[int, int]]:
        return [(0, 2), (0, 4), (1, 2)]

    def box_divergence(self, n: int, i: int, temperature: float, joint: bool = False) -> float:
        ours, theirs = self.bins[n, i], self.teacher_bins[n, i]
        if joint:
            return divergence(ours.flatten(), theirs.flatten(), temperature) / 4
        return sum(divergence(ours[e], theirs[e], temperature) for e in range(4)) / 4

    def region(self, n: int) -> list[float]:
        return valuable_region(
            list(self.priors.split(SIZES)), torch.tensor(GT[n]), (64, 64)
        ).tolist()

    def score(self, n: int, i: int) -> float:
        return self.logits[n, i].sigmoid().max().item()


@pytest.mark.parametrize("joint", [False, True])
def test_the_main_term_is_its_formula(joint: bool):
    case = Case()
    expected = sum(
        case.score(n, i) * case.box_divergence(n, i, 3.0, joint) for n, i in case.positives()
    )
    losses = case.losses(main_weight=0.7, loc_temperature=3.0, joint_softmax=joint)
    assert losses["loss_main"].item() == pytest.approx(0.7 * expected, rel=1e-5)


@pytest.mark.parametrize("excludes", [False, True])
@pytest.mark.parametrize("weighting", ["iou", "score"])
def test_the_vlr_term_is_its_formula(excludes: bool, weighting: str):
    case = Case()
    expected, count = 0.0, 0
    for n in range(2):
        for i, overlap in enumerate(case.region(n)):
            if overlap == 0 or (excludes and (n, i) in case.positives()):
                continue
            weight = overlap if weighting == "iou" else case.score(n, i)
            expected += weight * case.box_divergence(n, i, 10.0)
            count += 1
    assert count >= 3
    found = case.losses(vlr_weight=0.7, vlr_excludes_positives=excludes, vlr_weighting=weighting)[
        "loss_vlr"
    ]
    assert found.item() == pytest.approx(0.7 * expected, rel=1e-5)


def test_excluding_positives_changes_the_vlr_of_this_case():
    assert any(Case().region(n)[i] > 0 for n, i in Case().positives())


def test_the_region_inside_objects_is_of_background_only():
    case = Case()
    centers = (case.priors[:, :2] + case.priors[:, 2:]) / 2
    expected, seen = 0.0, set()
    for n in range(2):
        x1, y1, x2, y2 = GT[n][0]
        for i, (x, y) in enumerate(centers.tolist()):
            if x1 < x < x2 and y1 < y < y2:
                seen.add(case.labels[n, i].item())
                if case.labels[n, i] == 3:
                    expected += case.score(n, i) * case.box_divergence(n, i, 10.0)
    assert 3 in seen and len(seen) > 1
    found = case.losses(vlr_weight=1.0, vlr_region="inside", vlr_weighting="score")["loss_vlr"]
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_class_term_is_a_mean_over_the_positives_of_each_level_and_their_sum():
    case = Case()
    case.labels[1, 8] = 0  # one on the second level
    means = []
    for level in ([(0, 2), (0, 4), (1, 2)], [(1, 8)]):
        values = [divergence(case.logits[at], case.teacher_logits[at], 2.0) for at in level]
        means.append(sum(values) / len(values))
    assert case.losses()["loss_cls"].item() == pytest.approx(10 * sum(means), rel=1e-5)


def test_box_terms_are_sums_that_may_be_divided_by_half_the_images():
    case = Case()
    alone, doubled = case.losses(), case
    doubled.labels, doubled.logits, doubled.teacher_logits, doubled.bins, doubled.teacher_bins = (
        torch.cat((x, x))
        for x in (case.labels, case.logits, case.teacher_logits, case.bins, case.teacher_bins)
    )
    student = case.dense(case.logits, case.bins)
    teacher = case.dense(case.teacher_logits, case.teacher_bins)
    student.image_sizes = teacher.image_sizes = [(64, 64)] * 4
    truth = [instances((64, 64), boxes, [0]) for boxes in GT + GT]
    step = make_step(Targets(case.labels, torch.zeros(4, 10, 4), 3, torch.tensor(7.0)), truth)
    sums, neutral = LD()(student, teacher, step), LD(normalize="images")(student, teacher, step)
    for term in ("loss_main", "loss_vlr"):
        assert sums[term].item() == pytest.approx(2 * alone[term].item(), rel=1e-5)
        assert neutral[term].item() == pytest.approx(alone[term].item(), rel=1e-5)
    for losses in (sums, neutral):
        assert losses["loss_cls"].item() == pytest.approx(alone["loss_cls"].item(), rel=1e-5)


@pytest.mark.parametrize("weighting", ["iou", "score"])
def test_gradients_go_to_what_is_compared_and_not_through_weights_or_to_the_teacher(weighting: str):
    case = Case()
    inputs = (case.logits, case.bins, case.teacher_logits, case.teacher_bins)
    for tensor in inputs:
        tensor.requires_grad_()
    losses = case.losses(vlr_weighting=weighting)
    for term, reached in (
        ("loss_main", [False, True, False, False]),
        ("loss_vlr", [False, True, False, False]),
        ("loss_cls", [True, False, False, False]),
    ):
        found = torch.autograd.grad(losses[term], inputs, allow_unused=True, retain_graph=True)
        assert [g is not None and bool(g.abs().max() > 0) for g in found] == reached, term


@pytest.mark.parametrize("joint", [False, True])
def test_a_perfect_student_has_no_loss_and_no_gradient(joint: bool):
    case = Case()
    case.teacher_logits, case.teacher_bins = case.logits.clone(), case.bins.clone()
    case.logits.requires_grad_(), case.bins.requires_grad_()
    losses = case.losses(joint_softmax=joint)
    assert [loss.item() for loss in losses.values()] == [0, 0, 0]
    gradients = torch.autograd.grad(sum(losses.values()), (case.logits, case.bins))
    assert all(g.abs().max() < 1e-6 for g in gradients)


@pytest.mark.parametrize("weight", ["main", "vlr", "cls"])
def test_a_term_with_weight_zero_is_left_out(weight: str):
    assert set(Case().losses(**{f"{weight}_weight": 0.0})) == set(TERMS) - {f"loss_{weight}"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"vlr_region": "giou"}, "vlr_region='giou': expected one of"),
        ({"vlr_weighting": "l1"}, "vlr_weighting='l1': expected one of"),
        ({"normalize": "mean"}, "normalize='mean': expected one of"),
        ({"vlr_region": "inside"}, "set vlr_weighting='score'"),
        ({"loc_temperature": 0.0}, "expected numbers above 0"),
        ({"main_weight": -1.0}, "main_weight=-1.0"),
        ({"main_weight": 0.0, "vlr_weight": 0.0, "cls_weight": 0.0}, "one above it"),
    ],
)
def test_bad_options_say_what_is_expected(options, message):
    with pytest.raises(ValueError, match=message):
        LD(**options)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_the_whole_student_and_never_the_teacher(name: str, case: str):
    student, teacher = DETECTORS[name](seed=0), DETECTORS[name](seed=1)
    model = distill(student, teacher, ld=LD(**RELEASED[name]))
    losses = {k: v for k, v in model(batch(case)).items() if k.startswith("kd_")}
    assert list(losses) == [f"kd_ld_{term}" for term in TERMS]
    for loss in losses.values():
        assert loss.isfinite() and loss.requires_grad
        assert (loss > 0) == (case != "all empty")
    sum(losses.values()).backward()
    for key, parameter in student.named_parameters():
        quality = "ctrness" in key  # the centreness branch is not distilled
        if parameter.requires_grad:
            assert (parameter.grad is None) == quality, key
            assert quality or parameter.grad.isfinite().all()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize(
    "student, teacher, message",
    [
        (tiny_atss, tiny_gfl, "the student's ATSS predicts none; give its head a reg_max"),
        (
            lambda: tiny_gfl(head={"reg_max": 8}),
            tiny_gfl,
            "the student has reg_max=8 and the teacher 16",
        ),
        (lambda: tiny_gfl(num_classes=3), tiny_gfl, "num_classes=3"),
        (DETECTORS["fcos"], tiny_gfl, "the anchors differ"),
    ],
)
def test_detectors_that_cannot_be_compared_are_refused(student, teacher, message):
    with pytest.raises(DistillationError, match=message):
        distill(student(), teacher(), ld=LD())


def test_bins_of_other_distances_are_refused():
    student = DETECTORS["retinanet"]()
    student.box2box_transform.prior_scale = 4
    with pytest.raises(DistillationError, match="give both an equal box2box_transform"):
        distill(student, DETECTORS["retinanet"](), ld=LD())


def test_gfl_teaches_atss_with_distributions():
    losses = distill(DETECTORS["atss"](), tiny_gfl(seed=1), ld=LD())(batch("usual"))
    assert all(losses[f"kd_ld_{term}"] > 0 for term in TERMS)


def test_other_classes_are_mapped_for_the_class_term_and_do_not_matter_without_it():
    inputs = batch("usual")
    model = distill(tiny_gfl(), tiny_gfl(seed=1, num_classes=6), ld=LD(cls_weight=0.0))
    assert set(model(inputs)) >= {"kd_ld_loss_main", "kd_ld_loss_vlr"}
    class_map = {5: 0, 2: 1, 0: 3}
    mapped = distill(tiny_gfl(), tiny_gfl(seed=1, num_classes=6), ld=LD(class_map=class_map))
    losses = mapped(inputs)
    student, teacher = mapped.student, mapped.teacher.model
    images = student.preprocess_image(inputs)
    ours, theirs = student.run(images), teacher.run(images)
    targets = student.targets(ours, student.ground_truth(inputs))
    levels = targets.foreground.split(ours.num_predictions, dim=1)
    expected = 0.0
    for s, t, positive in zip(ours.logits, theirs.logits, levels):
        if positive.any():
            pairs = kl_divergence(
                s[positive][:, [0, 1, 3]], t[positive][:, [5, 2, 0]].detach(), 2.0
            )
            expected += 10 * (pairs / 3).mean().item()
    assert losses["kd_ld_loss_cls"].item() == pytest.approx(expected, rel=1e-5)
    assert NUM_CLASSES == 4
