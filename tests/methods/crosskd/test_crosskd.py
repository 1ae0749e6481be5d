"""CrossKD's equations and its alignment by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dense_kd import CrossKD
from dense_kd.methods import Step
from dense_kd.methods.crosskd import align_statistics
from dense_kd.outputs import DensePass, Targets

K = 3
WITHOUT_TAPS: dict[tuple[str, int], list[Tensor]] = {("cls", 3): [], ("bbox", 3): []}


def dense_pass(
    seed: int, quality: bool = False, bins: int = 0, requires_grad: bool = False
) -> DensePass:
    """Random predictions of two images on two levels of eight and four cells."""
    generator = torch.Generator().manual_seed(seed)

    def levels(*shape: int) -> list[Tensor]:
        maps = [torch.randn(2, cells, *shape, generator=generator) for cells in (8, 4)]
        return [x.requires_grad_(requires_grad) for x in maps]

    corners = levels(4)
    return DensePass(
        features=[],
        logits=levels(K),
        deltas=corners,
        priors=[torch.zeros(cells, 4) for cells in (8, 4)],
        strides=[8, 16],
        num_anchors=1,
        image_sizes=[(32, 16)] * 2,
        decode=lambda deltas, _: torch.cat((-deltas[..., :2].exp(), deltas[..., 2:].exp()), dim=-1),
        quality=levels() if quality else None,
        distribution=levels(4, bins) if bins else None,
        taps=dict(WITHOUT_TAPS),
    )


def targets(normalizer: float = 5.0, quality: Tensor | None = None) -> Targets:
    """Four positives in the first image, two ignored predictions in the second."""
    labels = torch.full((2, 12), K)
    labels[0, 2:6] = 1
    labels[1, 4:6] = -1
    return Targets(labels, torch.zeros(2, 12, 4), K, torch.tensor(normalizer), quality)


def losses_of(
    cross: DensePass, teacher: DensePass, of_step: Targets, **options: Any
) -> dict[str, Tensor]:
    """The terms for given cross-head predictions; the student's own do not matter."""

    def resume(*_) -> DensePass:
        return cross

    step = Step(
        of_step,
        [],
        0,
        resume,
        assign=lambda: pytest.fail("has the same anchors"),
        images=torch.zeros(0),
    )
    return CrossKD(**options)(dense_pass(seed=99), teacher, step)


def predictions(of_step: Targets) -> list[tuple[int, int]]:
    """(image, index) of those that are not ignored."""
    return [(n, i) for n in range(2) for i in range(12) if of_step.labels[n, i] >= 0]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def cross_entropy(p: float, q: float) -> float:
    return -(q * math.log(p) + (1 - q) * math.log(1 - p))


def expected_class_loss(cross: DensePass, teacher: DensePass, of_step: Targets) -> float:
    c, t = (torch.cat(dense.logits, dim=1) for dense in (cross, teacher))
    total = 0.0
    for n, i in predictions(of_step):
        for p, q in zip(c[n, i].tolist(), t[n, i].tolist()):
            p, q = sigmoid(p), sigmoid(q)
            total += abs(q - p) * cross_entropy(p, q)
    return total


def expected_box_loss(cross: DensePass, teacher: DensePass, of_step: Targets, kind: str) -> float:
    t = torch.cat(teacher.logits, dim=1)
    boxes, teacher_boxes = (torch.cat(dense.boxes, dim=1) for dense in (cross, teacher))
    total = 0.0
    for n, i in predictions(of_step):
        a, b = boxes[n, i].tolist(), teacher_boxes[n, i].tolist()
        inter = (min(a[2], b[2]) - max(a[0], b[0])) * (min(a[3], b[3]) - max(a[1], b[1]))
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
        hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
        giou = inter / union - (hull - union) / hull
        distance = 1 - giou if kind == "giou" else -math.log(inter / union)
        total += sigmoid(t[n, i].max().item()) * distance
    return total


@pytest.mark.parametrize("kind", ["auto", "giou", "iou"])
def test_losses_follow_the_equations_written_out_in_loops(kind: str):
    cross, teacher, of_step = dense_pass(0), dense_pass(1), targets()
    losses = losses_of(cross, teacher, of_step, cls_weight=2.0, loc_weight=3.0, loc_loss=kind)
    assert list(losses) == ["loss_cls", "loss_loc"]
    cls = expected_class_loss(cross, teacher, of_step)
    loc = expected_box_loss(cross, teacher, of_step, "iou" if kind == "iou" else "giou")
    assert losses["loss_cls"].item() == pytest.approx(2 * cls / 5, rel=1e-5)
    assert losses["loss_loc"].item() == pytest.approx(3 * loc / 5, rel=1e-5)


def test_distributions_are_compared_by_kl_divergence_divided_by_the_sum_of_scores():
    cross, teacher, of_step = dense_pass(0, bins=5), dense_pass(1, bins=5), targets()
    losses = losses_of(cross, teacher, of_step, loc_weight=4.0)
    t = torch.cat(teacher.logits, dim=1)
    p, q = (torch.cat(x.distribution, dim=1).softmax(-1) for x in (cross, teacher))
    total = scores = 0.0
    for n, i in predictions(of_step):
        score = sigmoid(t[n, i].max().item())
        scores += score
        for side in range(4):
            pairs = zip(p[n, i, side].tolist(), q[n, i, side].tolist())
            total += score * sum(b * math.log(b / a) for a, b in pairs)
    assert losses["loss_loc"].item() == pytest.approx(4.0 * total / 4 / scores, rel=1e-5)
    boxes = losses_of(cross, teacher, of_step, loc_loss="giou")["loss_loc"]
    expected = expected_box_loss(cross, teacher, of_step, "giou") / 5
    assert boxes.item() == pytest.approx(expected, rel=1e-5)


def test_quality_is_distilled_on_positives_only():
    cross, teacher = dense_pass(0, quality=True), dense_pass(1, quality=True)
    losses = losses_of(cross, teacher, targets(), quality_weight=2.0)
    total = 0.0
    for i in range(2, 6):
        c, t = cross.quality[0][0, i].item(), teacher.quality[0][0, i].item()
        total += cross_entropy(sigmoid(c), sigmoid(t))
    assert losses["loss_quality"].item() == pytest.approx(2.0 * total / 5, rel=1e-5)


@pytest.mark.parametrize(
    ("normalize", "quality", "expected"),
    [
        ("positives", None, 5.0),
        ("quality", 0.25, 1.0),  # of each of four positives
        ("quality", 0.5, 2.0),
        ("quality", 0.0, 1.0),  # nothing to divide by
        ("predictions", None, 22.0),
    ],
)
def test_normalizers(normalize: str, quality: float | None, expected: float):
    cross, teacher = dense_pass(0), dense_pass(1)
    # That of background does not count.
    of_step = targets(quality=None if quality is None else torch.full((2, 12), 0.9))
    if quality is not None:
        of_step.quality[0, 2:6] = quality
    losses = losses_of(cross, teacher, of_step, normalize=normalize)
    cls = expected_class_loss(cross, teacher, of_step)
    loc = expected_box_loss(cross, teacher, of_step, "giou")
    assert losses["loss_cls"].item() == pytest.approx(cls / expected, rel=1e-5)
    assert losses["loss_loc"].item() == pytest.approx(loc / expected, rel=1e-5)


def test_the_papers_box_term_weights_all_predictions_alike():
    cross, teacher, of_step = dense_pass(0), dense_pass(1), targets()
    losses = losses_of(cross, teacher, of_step, loc_weighting="uniform", normalize="predictions")
    for dense in (teacher,):  # a score of one half everywhere
        dense.logits = [torch.zeros_like(x) for x in dense.logits]
    expected = 2 * expected_box_loss(cross, teacher, of_step, "giou") / 22
    assert losses["loss_loc"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("logit", [-200.0, -100.0, -80.0])
def test_scores_of_zero_leave_the_distribution_loss_and_its_gradient_finite(logit: float):
    cross, teacher = dense_pass(0, bins=5, requires_grad=True), dense_pass(1, bins=5)
    teacher.logits = [torch.full_like(x, logit) for x in teacher.logits]
    loss = losses_of(cross, teacher, targets())["loss_loc"]
    gradients = torch.autograd.grad(loss, cross.distribution)
    assert loss.isfinite() and all(g.isfinite().all() for g in gradients)
    uniform = losses_of(cross, teacher, targets(), loc_weighting="uniform")["loss_loc"]
    if logit == -200:  # sigmoid gives exactly 0
        assert loss == 0
    if logit == -80:  # equal weights, however small
        torch.testing.assert_close(loss, uniform)


def test_class_gradient_goes_through_both_factors_and_none_to_the_teacher():
    cross, teacher = dense_pass(0, requires_grad=True), dense_pass(1, requires_grad=True)
    of_step = targets()
    losses = losses_of(cross, teacher, of_step)
    c, t = torch.cat(cross.logits, dim=1).sigmoid(), torch.cat(teacher.logits, dim=1).sigmoid()
    entropy = torch.nn.functional.binary_cross_entropy(c, t.detach(), reduction="none")
    attached = (entropy * (t.detach() - c).abs())[of_step.valid].sum() / 5
    expected = torch.autograd.grad(attached, cross.logits)
    found = torch.autograd.grad(losses["loss_cls"], cross.logits, retain_graph=True)
    for x, y in zip(found, expected):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-7)
    total = losses["loss_cls"] + losses["loss_loc"].detach()
    assert torch.autograd.grad(total, teacher.logits, allow_unused=True) == (None, None)


@pytest.mark.parametrize(
    ("weights", "terms"),
    [
        ({"cls_weight": 0.0}, ["loss_loc"]),
        ({"loc_weight": 0.0}, ["loss_cls"]),
        ({"cls_weight": 0.0, "loc_weight": 0.0, "quality_weight": 1.0}, ["loss_quality"]),
    ],
)
def test_a_term_with_weight_zero_is_left_out(weights: dict, terms: list[str]):
    cross, teacher = dense_pass(0, quality=True), dense_pass(1, quality=True)
    assert list(losses_of(cross, teacher, targets(), **weights)) == terms


def test_alignment_by_hand():
    """Student (1, 3): mean 2, deviation sqrt(2); teacher (10, 10, 16): 12 and sqrt(12)."""
    feature = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    reference = torch.tensor([10.0, 10.0, 16.0]).view(1, 1, 3, 1)
    aligned = align_statistics([feature], [reference])[0].flatten().tolist()
    step = math.sqrt(12) / (math.sqrt(2) + 1e-6)
    assert aligned == pytest.approx([12 - step, 12 + step], rel=1e-6)


def test_alignment_gives_each_channel_the_statistics_over_images_and_cells():
    generator = torch.Generator().manual_seed(0)
    feature, reference = torch.randn(2, 3, 4, 5, 6, generator=generator).double()
    reference = reference * torch.tensor([1.0, 5.0, 0.1, 2.0]).view(1, 4, 1, 1) + 3
    aligned = align_statistics([feature], [reference])[0]
    for statistic in (torch.mean, torch.std):
        found, expected = (statistic(x, dim=(0, 2, 3)) for x in (aligned, reference))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    feature.requires_grad_()
    reference.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: align_statistics([x], [reference.detach()])[0], feature
    )
    (align_statistics([feature], [reference])[0] ** 3).sum().backward()
    assert reference.grad is None
    # What shifts or scales the student's feature does not change the aligned one.
    assert feature.grad.sum(dim=(0, 2, 3)).abs().max() < 1e-9
    product = (feature.grad * feature.detach()).flatten()
    assert product.sum().abs() < 1e-5 * product.abs().sum()


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 4, 5)], ids=["one cell", "dead channels"])
def test_alignment_without_variance_is_finite(shape: tuple[int, ...]):
    feature = torch.full(shape, 0.7, requires_grad=True)
    for reference in (torch.rand(shape), torch.zeros(shape)):
        aligned = align_statistics([feature], [reference])[0]
        mean = reference.mean(dim=(0, 2, 3), keepdim=True).expand(shape)
        torch.testing.assert_close(aligned, mean, rtol=0.2, atol=1e-6)
        gradient = torch.autograd.grad((aligned**2).sum(), feature)[0]
        assert gradient.isfinite().all()
