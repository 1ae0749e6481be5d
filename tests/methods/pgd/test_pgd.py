"""PGD: its formulas by hand, between detectors, and in its edge cases."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from torch import Tensor

from dense_kd import PGD, DistillationError
from dense_kd.methods.base.attention import spatial_attention
from dense_kd.methods.pgd.released import are_points, released_normalization
from dense_kd.methods.pgd.terms import (
    bbox_terms,
    channel_attention,
    cls_terms,
    normalize_per_image,
)
from dense_kd.outputs import DensePass
from helpers.builders import (
    CASES,
    batch,
    fcos_config,
    instances,
    tiny_atss,
    tiny_autoassign,
    tiny_ddod,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)
from helpers.feature_cases import distill
from helpers.ld_reference import make_step

TERMS = (
    "loss_cls_foreground",
    "loss_cls_background",
    "loss_cls_attention",
    "loss_bbox",
    "loss_bbox_attention",
)
DETECTORS = {
    "retinanet": tiny_retinanet,
    "fcos": tiny_fcos,
    "atss": tiny_atss,
    "gfl": tiny_gfl,
    "ddod": tiny_ddod,
    "autoassign": tiny_autoassign,
}


def wave(shape: tuple[int, ...], *numbers: float) -> Tensor:
    """offset + amplitude * sin(frequency * n + phase) of the flat index n."""
    frequency, phase, amplitude, offset = numbers
    n = torch.arange(math.prod(shape)).double()
    return (offset + amplitude * torch.sin(frequency * n + phase)).view(shape)


def waves() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features of student and teacher, (2, 3, 4, 5), foreground and background, (2, 4, 5)."""
    mask = wave((2, 4, 5), 0.9, 0.0, 0.5, 0.5)
    background = (wave((2, 4, 5), 1.3, 0.4, 1.0, 0.0) > 0).double()
    ours = wave((2, 3, 4, 5), 0.37, 0.1, 2.0, 0.5)
    theirs = wave((2, 3, 4, 5), 0.53, 0.8, 1.5, -0.2)
    return ours, theirs, mask.masked_fill(mask <= 0.6, 0.0), background


def test_class_terms_are_those_worked_out():
    ours, theirs, mask, background = waves()
    cls, other, _ = normalize_per_image(mask, mask, background)
    terms = cls_terms(ours, theirs, cls, other, 0.8)
    expected = (13.58488370, 12.95123524, 8.50769142)
    assert [term.item() for term in terms] == pytest.approx(list(expected), rel=1e-8)
    loss = 1.25 * (0.08 * terms[0] + 0.04 * terms[1]) + 8e-4 * terms[2]
    assert loss.item() == pytest.approx(2.01285628, rel=1e-8)


def test_released_terms_are_those_worked_out():
    ours, theirs, mask, background = waves()
    cls, other, share = released_normalization(mask, mask, background)
    terms = cls_terms(ours, theirs, cls, other, 0.8)
    loss = 1.25 * (0.08 * terms[0] + 0.04 * terms[1]) + 8e-4 * terms[2]
    assert loss.item() == pytest.approx(3.68279686, rel=1e-8)
    feature, attention = bbox_terms(ours, theirs, mask, share, 0.8)
    assert (0.128 * feature + 8e-4 * attention).item() == pytest.approx(0.59941112, rel=1e-7)


def test_attentions_average_to_one():
    feature = waves()[0]
    ones = torch.ones(2, dtype=torch.float64)
    torch.testing.assert_close(spatial_attention(feature, 0.8).mean(dim=(1, 2)), ones)
    torch.testing.assert_close(channel_attention(feature, 0.8).mean(dim=(1, 2, 3)), ones)
    flat = torch.zeros(2, 3, 4, 5)
    assert spatial_attention(flat, 0.8).eq(1).all() and channel_attention(flat, 0.8).eq(1).all()


def passes() -> tuple[DensePass, DensePass]:
    """Points of the strides 8 and 16, a tower of 6 channels, 3 classes; images of 32 x 48."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(4, 6), (2, 3)]
    found = []
    for _ in range(2):
        taps: dict[tuple[str, int], list[Tensor]] = {("cls", 1): [], ("bbox", 1): []}
        logits, boxes, priors = [], [], []
        for stride, (height, width) in zip((8, 16), sizes):
            for levels in taps.values():
                levels.append(torch.randn(2, 6, height, width, generator=generator).relu())
            cells = height * width
            logits.append(torch.randn(2, cells, 3, generator=generator))
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            centers = (torch.stack((x, y), dim=-1).view(-1, 2) + 0.5) * stride
            priors.append(torch.cat((centers - stride / 2, centers + stride / 2), dim=1))
            sides = 4 + 20 * torch.rand(2, cells, 4, generator=generator)
            low, high = centers - sides[..., :2], centers + sides[..., 2:]
            boxes.append(torch.cat((low, high), dim=2))
        dense = DensePass(
            features=taps["cls", 1],
            logits=logits,
            deltas=boxes,
            priors=priors,
            strides=[8, 16],
            num_anchors=1,
            image_sizes=[(32, 48)] * 2,
            decode=lambda deltas, priors: deltas,
            taps=taps,
        )
        found.append(dense)
    return found[0], found[1]


TRUTH = [
    instances((32, 48), [[2, 2, 30, 30], [20, 10, 46, 31]], [0, 2]),
    instances((32, 48), [[10, 4, 21, 14]], [1]),
]


def losses(**options: Any) -> dict[str, Tensor]:
    return PGD(**options)(*passes(), make_step(None, TRUTH))


@pytest.mark.parametrize("step", [0.0, 0.25])
def test_the_losses_are_their_formulas(step: float):
    """Location by location."""
    student, teacher = passes()
    method = PGD(
        alpha=0.3, beta=0.2, gamma=0.5, delta=0.1, temperature=0.7, topk=4, level_step=step
    )
    masks = method.masks(teacher, TRUTH)
    expected = dict.fromkeys(TERMS, 0.0)
    for level in range(2):
        factor = 1 + step * level
        for n in range(2):
            f_s, f_t, b_s, b_t = (
                dense.taps[branch, 1][level][n].double()
                for branch in ("cls", "bbox")
                for dense in (student, teacher)
            )
            fore, box, back = (x[level][n] for x in masks)
            height, width = fore.shape

            def spatial(f: Tensor) -> Tensor:
                e = (f.abs().mean(dim=0) / 0.7).exp()
                return e * e.numel() / e.sum()

            def channel(column: Tensor) -> Tensor:
                e = (column.abs() / 0.7).exp()
                return e * len(e) / e.sum()

            p_s, p_t = spatial(f_s), spatial(f_t)
            for y in range(height):
                for x in range(width):
                    s, t = f_s[:, y, x], f_t[:, y, x]
                    value = (p_t[y, x] * channel(t) * (t - s) ** 2).sum().item()
                    for term, mask, weight in (
                        ("loss_cls_foreground", fore, 0.3),
                        ("loss_cls_background", back, 0.2),
                    ):
                        share = mask[y, x].item() / max(1, (mask != 0).sum().item())
                        expected[term] += factor * weight * share * value / 2
                    attention = (channel(t) - channel(s)).abs().sum() / (height * width)
                    attention += (p_t[y, x] - p_s[y, x]).abs()
                    expected["loss_cls_attention"] += 0.1 * attention.item() / 2
                    if box[y, x] > 0:
                        s, t = b_s[:, y, x], b_t[:, y, x]
                        share = 1 / (box > 0).sum().item() / 2
                        value = (channel(t) * (t - s) ** 2).mean() * box[y, x]
                        expected["loss_bbox"] += 0.5 * share * value.item()
                        attention = (channel(t) - channel(s)).abs().sum().item()
                        expected["loss_bbox_attention"] += 0.1 * share * attention
    found = method(student, teacher, make_step(None, TRUTH))
    assert tuple(found) == TERMS
    for term in TERMS:
        assert found[term].item() == pytest.approx(expected[term], rel=1e-5), term


@pytest.mark.parametrize("branches", [("cls",), ("bbox",), ("bbox", "cls")])
def test_branches_alone_are_the_terms_that_they_have_together(branches: tuple):
    student, teacher = passes()
    together = PGD()(student, teacher, make_step(None, TRUTH))
    method = PGD(branches=branches)
    assert method.needs.taps == tuple((branch, 1) for branch in branches)
    found = method(student, teacher, make_step(None, TRUTH))
    assert set(found) == {t for t in TERMS if t.split("_")[1] in branches}
    assert all(torch.equal(loss, together[term]) for term, loss in found.items())


def test_the_neck_has_the_terms_of_the_class_branch_on_the_pyramid():
    student, teacher = passes()
    expected = PGD()(student, teacher, make_step(None, TRUTH))
    for dense in (student, teacher):
        dense.features, dense.taps = dense.taps["cls", 1], {}
    found = PGD(branches=("neck",))(student, teacher, make_step(None, TRUTH))
    assert len(found) == 3
    for term, loss in found.items():
        torch.testing.assert_close(loss, expected[term.replace("neck", "cls")], rtol=1e-6, atol=0)


def test_the_neck_of_other_widths_is_adapted_and_trains_the_pyramid():
    student, teacher = tiny_fcos(), tiny_fcos(seed=1, channels=32)
    model = distill(student, teacher, pgd=PGD(branches=("neck",)))
    found = {k: v for k, v in model(batch()).items() if k.startswith("kd_")}
    sum(found.values()).backward()
    assert [p.shape for p in model.kd.parameters()] == [(32, 16, 1, 1), (32,)]
    assert all(p.grad.abs().max() > 0 for p in model.kd.parameters())
    assert student.backbone.fpn_output3.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in student.head.parameters())


def test_weights_follow_alpha_unless_they_are_given():
    method = PGD(alpha=0.04)
    assert (method.beta, method.gamma, method.delta) == (0.02, 0.064, 8e-4)
    method = PGD(alpha=0.04, beta=0.0, gamma=1.0)
    assert (method.beta, method.gamma) == (0.0, 1.0)


def test_gradient_goes_to_the_students_taps_only_and_a_copy_of_the_teacher_has_none():
    student, teacher = passes()
    ours = [x for levels in student.taps.values() for x in levels]
    theirs = [x for levels in teacher.taps.values() for x in levels]
    theirs += teacher.logits + teacher.deltas
    for tensor in ours + theirs:
        tensor.requires_grad_()
    total = sum(PGD()(student, teacher, make_step(None, TRUTH)).values())
    gradients = torch.autograd.grad(total, ours + theirs, allow_unused=True)
    assert all(g.abs().max() > 0 for g in gradients[: len(ours)])
    assert all(g is None for g in gradients[len(ours) :])
    equal = PGD()(teacher, teacher, make_step(None, TRUTH))
    assert all(loss == 0 for loss in equal.values())


@pytest.mark.parametrize("compat", ["corrected", "released"])
@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("case", CASES)
def test_gradient_reaches_the_first_block_of_both_towers_and_no_further(name, case, compat):
    build = DETECTORS[name]
    # The smallest maps of five levels are a single cell.
    student, teacher = build(num_levels=5), build(num_levels=5, seed=1)
    found = distill(student, teacher, pgd=PGD(compat=compat))(batch(case))
    kd = {key: loss for key, loss in found.items() if key.startswith("kd_")}
    assert list(kd) == [f"kd_pgd_{term}" for term in TERMS]
    for key, loss in kd.items():
        assert loss.isfinite() and loss.requires_grad and loss.dtype == torch.float32
        if not (case == "all empty" and key.split("kd_pgd_")[1] in (TERMS[0], *TERMS[3:])):
            assert loss > 0, key
        else:
            assert loss == 0, key
    sum(kd.values()).backward()
    for tower in (student.head.cls_subnet, student.head.bbox_subnet):
        assert tower[0].weight.grad.isfinite().all()
        assert tower[-2 if name == "retinanet" else -3].weight.grad is None
    assert student.head.cls_score.weight.grad is None
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_towers_of_other_widths_are_adapted_by_a_convolution_per_branch():
    wide = tiny_fcos(seed=1, channels=32)
    model = distill(tiny_fcos(), wide, pgd=PGD())
    names = {n for n, _ in model.kd.pgd.named_parameters()}
    assert names == {f"adapters.{b}.{p}" for b in ("cls", "bbox") for p in ("weight", "bias")}
    for case in CASES:
        model.zero_grad()
        found = model(batch(case))
        sum(found[f"kd_pgd_{term}"] for term in TERMS).backward()
        # DistributedDataParallel waits for each.
        assert all(p.grad.isfinite().all() for p in model.kd.parameters())
    assert not list(distill(tiny_fcos(), tiny_fcos(), pgd=PGD()).kd.parameters())


def test_towers_wider_than_their_pyramid_are_adapted():
    config = fcos_config()
    config.head.conv_dims = [24, 24]
    model = distill(instantiate(config), tiny_fcos(seed=1), pgd=PGD())
    assert model.kd.pgd.adapters["cls"].weight.shape == (16, 24, 1, 1)
    assert all(model(batch())[f"kd_pgd_{term}"] > 0 for term in TERMS)


@pytest.mark.parametrize(
    "student, teacher", [(tiny_gfl, tiny_fcos), (tiny_retinanet, tiny_atss), (tiny_atss, tiny_gfl)]
)
def test_detectors_may_differ(student, teacher):
    found = distill(student(), teacher(seed=1), pgd=PGD())(batch())
    assert all(found[f"kd_pgd_{term}"] > 0 for term in TERMS)


def test_objects_of_a_class_that_the_teacher_lacks_are_neither_foreground_nor_background():
    model = distill(
        tiny_fcos(), tiny_fcos(seed=1, num_classes=6), pgd=PGD(class_map={5: 0, 2: 1, 0: 3})
    )
    method, teacher = model.kd.pgd, model.teacher.model
    inputs = batch()
    truth = model.student.ground_truth(inputs)
    dense = teacher.run(teacher.preprocess_image(inputs))
    known = [t[t.gt_classes != 2] for t in truth]
    assert sum(map(len, known)) < sum(map(len, truth))
    mapped = []
    for t in known:
        classes = [{0: 5, 1: 2, 3: 0}[c] for c in t.gt_classes.tolist()]
        mapped.append(instances(t.image_size, t.gt_boxes.tensor.tolist(), classes))
    found, of_known = method.masks(dense, truth), PGD().masks(dense, mapped)
    same = PGD().masks(dense, truth)
    for level in range(3):
        assert torch.equal(found.cls[level], of_known.cls[level])
        assert torch.equal(found.bbox[level], of_known.bbox[level])
        assert torch.equal(found.background[level], same.background[level])


def test_padding_of_an_image_is_in_no_mask():
    teacher = tiny_fcos()
    inputs = batch()  # (64, 96) and (80, 72), padded to (96, 96)
    truth = teacher.ground_truth(inputs)
    dense = teacher.run(teacher.preprocess_image(inputs))
    finest = PGD(foreground="box").masks(dense, truth).background[0]
    everywhere = PGD(foreground="box", padding_multiple=None).masks(dense, truth).background[0]
    assert finest[0, 8:].sum() == 0 and everywhere[0, 8:].all() and everywhere[0, 8:].numel() > 0
    assert torch.equal(finest[0, :8], everywhere[0, :8])


@pytest.mark.parametrize("name", DETECTORS)
def test_what_is_predicted_in_the_padding_of_an_image_changes_no_mask(name: str):
    teacher = DETECTORS[name]()
    inputs = batch()  # the first image has 64 rows of 96
    inputs[0]["instances"] = instances((64, 96), [[-1, -1, 97, 65]], [1])
    truth = teacher.ground_truth(inputs)
    method = PGD(foreground="quality")
    with torch.no_grad():
        dense = teacher.run(teacher.preprocess_image(inputs))
        before = method.masks(dense, truth)
        for stride, logits, boxes in zip(dense.strides, dense.logits, dense.boxes):
            padding = 64 * 96 // stride**2 * dense.num_anchors
            logits[0, padding:] = 10.0
            boxes[0, padding:] = truth[0].gt_boxes.tensor[0]
        after = method.masks(dense, truth)
    assert before.cls[0].any()
    for old, new in zip(before, after):
        assert all(torch.equal(*levels) for levels in zip(old, new))


@pytest.mark.parametrize("name", DETECTORS)
def test_an_image_that_fills_its_batch_has_no_padding(name: str):
    """On the coarsest of five levels a point of FCOS is beyond the image, its cell is not."""
    teacher = DETECTORS[name](num_levels=5)
    inputs = [{"image": torch.zeros(3, 160, 200), "instances": instances((160, 200), [], [])}]
    dense = teacher.run(teacher.preprocess_image(inputs))
    background = PGD().masks(dense, teacher.ground_truth(inputs)).background
    assert all(level.all() for level in background)


@pytest.mark.parametrize("name", DETECTORS)
def test_points_are_told_from_anchors_by_the_size_of_their_priors(name: str):
    model = DETECTORS[name]()
    dense = model.run(model.preprocess_image(batch()))
    assert are_points(dense) == (name in ("fcos", "autoassign"))


def test_boxes_of_distributions_cannot_have_the_released_error_for_more_images_than_levels():
    model = distill(tiny_gfl(), tiny_gfl(seed=1), pgd=PGD(compat="released"))
    with pytest.raises(ValueError, match="4 images for 3 levels"):
        model(batch() + batch(seed=1))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"foreground": "gauss"}, "foreground='gauss': expected one of"),
        ({"compat": "paper"}, "compat='paper': expected one of"),
        ({"compat": "released", "foreground": "box"}, "only foreground='ours'"),
        ({"alpha": -1.0}, "expected weights of at least 0"),
        ({"alpha": 0.0, "delta": 0.0}, "one above it"),
        ({"branches": ("bbox",), "gamma": 0.0, "delta": 0.0}, "gamma=0.0 and delta=0.0"),
        ({"branches": ("neck",), "alpha": 0.0, "gamma": 1.0, "delta": 0.0}, "one above it"),
        ({"level_step": -1.0}, "level_step=-1.0: expected a number of at least 0"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"topk": 0}, "topk=0"),
        ({"branches": ()}, "one or more of"),
        ({"branches": "neck"}, "branches='neck': expected one or more of"),
        ({"branches": ("cls", "ctr")}, r"branches=\('cls', 'ctr'\): expected one or more of"),
        ({"branches": ("cls", "cls")}, "each once"),
        ({"bbox_iou_exponent": 1.5}, "bbox_iou_exponent=1.5"),
    ],
)
def test_bad_options_say_what_is_expected(options, message):
    with pytest.raises(ValueError, match=message):
        PGD(**options)


@pytest.mark.parametrize(
    "student, teacher, message",
    [
        (lambda: tiny_fcos(num_levels=5), tiny_fcos, "level strides"),
        (lambda: tiny_fcos(num_classes=3), tiny_fcos, "num_classes=3"),
    ],
)
def test_detectors_that_cannot_be_compared_are_refused(student, teacher, message):
    with pytest.raises(DistillationError, match=message):
        distill(student(), teacher(), pgd=PGD())
