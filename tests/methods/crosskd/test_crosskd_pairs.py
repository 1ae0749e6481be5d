"""CrossKD between real detectors, equal and different: what is trained, and by how much."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import instantiate

from dense_kd import CrossKD, Distiller, FromTeacher, MethodSet, Teacher, get_config
from dense_kd.detectors import DenseDetector, DistanceCoder
from dense_kd.methods import Step
from dense_kd.outputs import DensePass
from helpers.builders import (
    CASES,
    batch,
    tiny_atss,
    tiny_autoassign,
    tiny_ddod,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)
from helpers.copies import built_once
from helpers.feature_cases import distill

BUILDERS = [tiny_retinanet, tiny_fcos, tiny_atss, tiny_ddod, tiny_gfl, tiny_autoassign]
TERMS = ("kd_crosskd_loss_cls", "kd_crosskd_loss_loc")


def distiller_of(student: DenseDetector, teacher: DenseDetector, **options: Any) -> Distiller:
    return distill(student, teacher, crosskd=CrossKD(**{"depth": 1, **options}))


@built_once
def nine_anchors() -> DenseDetector:
    torch.manual_seed(0)
    return instantiate(get_config("quickstart/retinanet.py").model)


@built_once
def points() -> DenseDetector:
    torch.manual_seed(1)
    return instantiate(get_config("quickstart/student.py").model)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("depth", [0, 1, {"cls": 2, "bbox": 1}], ids=str)
def test_gradients_reach_the_student_up_to_the_tap_and_never_the_teacher(build, case, depth):
    student, teacher = build(seed=0), build(seed=1)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    losses = distiller_of(student, teacher, depth=depth)(batch(case))
    kd = losses[TERMS[0]] + losses[TERMS[1]]
    assert torch.isfinite(kd) and kd > 0
    kd.backward()
    depths = {"cls": depth, "bbox": depth} if isinstance(depth, int) else depth
    size = len(student.head.cls_subnet) // student.head.depth
    reached = {
        f"head.{branch}_subnet.{layer}."
        for branch, blocks in depths.items()
        for layer in range(blocks * size)
    }
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            expected = name.startswith(("backbone.", *reached))
            assert (parameter.grad is not None) == expected, name
            assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def fcos_of_boxes_with_area(**options: Any) -> DenseDetector:
    """The overlap of a box without area with itself is 0, not 1."""
    return tiny_fcos(box2box_transform=DistanceCoder(activation="exp"), **options)


@pytest.mark.parametrize(
    "build", [tiny_retinanet, fcos_of_boxes_with_area, tiny_atss, tiny_ddod, tiny_gfl]
)
@pytest.mark.parametrize("options", [{}, {"align_on": "pre_relu"}, {"align": False}])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(build, options):
    equal = distiller_of(build(), build(), **options)(batch())
    other = distiller_of(build(), build(seed=1), **options)(batch())
    for term in TERMS:
        assert -1e-6 < equal[term] < (1e-4 if options.get("align", True) else 1e-5) * other[term], (
            term
        )


@pytest.mark.parametrize("build", [tiny_fcos, tiny_atss, tiny_ddod, tiny_autoassign])
def test_the_quality_branch_is_distilled_on_request(build):
    student = build()
    losses = distiller_of(student, build(seed=1), quality_weight=1.0)(batch())
    assert losses["kd_crosskd_loss_quality"] > 0
    losses["kd_crosskd_loss_quality"].backward()
    assert student.head.bbox_subnet[0].weight.grad.abs().sum() > 0
    assert student.head.cls_subnet[0].weight.grad is None
    assert all(p.grad is None for p in student.head.cls_score.parameters())


OTHERS = {
    "ATSS into GFL": (tiny_gfl, tiny_atss),
    "RetinaNet into GFL": (tiny_gfl, tiny_retinanet),
    "GFL into RetinaNet": (tiny_retinanet, tiny_gfl),
    "DDOD into FCOS": (tiny_fcos, tiny_ddod),
    "FCOS into AutoAssign": (tiny_autoassign, tiny_fcos),
    "FCOS into ATSS of other classes": (tiny_atss, lambda **k: tiny_fcos(num_classes=7, **k)),
    "GFL into GFL of other classes": (tiny_gfl, lambda **k: tiny_gfl(num_classes=2, **k)),
    "nine anchors into points": (points, lambda **k: nine_anchors()),
    "points into nine anchors": (nine_anchors, lambda **k: points()),
}


@pytest.mark.parametrize("pair", OTHERS)
@pytest.mark.parametrize("case", CASES)
def test_detectors_anchors_and_classes_may_differ(pair: str, case: str):
    build_student, build_teacher = OTHERS[pair]
    student, teacher = build_student(), build_teacher(seed=1)
    distiller = distiller_of(student, teacher)
    losses = distiller(batch(case))
    assert all(losses[term].isfinite() and losses[term] > 0 for term in TERMS)
    (losses[TERMS[0]] + losses[TERMS[1]]).backward()
    assert student.head.cls_subnet[0].weight.grad.abs().sum() > 0
    assert student.head.bbox_subnet[0].weight.grad.abs().sum() > 0
    assert student.head.cls_score.weight.grad is None
    optimizer = torch.optim.SGD(distiller.parameters(), lr=1e-4)
    optimizer.step()
    assert all(loss.isfinite() for loss in distiller(batch(case)).values())


def passes(distiller: Distiller) -> tuple[DensePass, DensePass, Step]:
    """What the distiller hands to its methods."""
    caught = []
    hook = distiller.kd.crosskd.register_forward_pre_hook(lambda _, inputs: caught.append(inputs))
    distiller(batch())
    hook.remove()
    return caught[0]


def test_with_other_anchors_padding_is_left_out_and_the_teachers_positives_are_counted():
    distiller = distiller_of(tiny_gfl(), tiny_retinanet(seed=1), loc_weight=0.0)
    student, teacher, step = passes(distiller)
    cross = distiller.kd.crosskd.cross_predictions(student, teacher, step.resume)
    total = 0.0
    for level, stride in enumerate((8, 16, 32)):
        maps = []
        for dense in (cross, teacher):  # (N, Hl, Wl, A, K)
            height, width = dense.features[level].shape[-2:]
            maps.append(dense.logits[level].view(2, height, width, 6, 4))
        for image, (height, width) in enumerate([(64, 96), (80, 72)]):
            rows, columns = -(-height // stride), -(-width // stride)
            c, t = (x[image, :rows, :columns].sigmoid() for x in maps)
            entropy = torch.nn.functional.binary_cross_entropy(c, t, reduction="none")
            total += ((c - t).abs() * entropy).sum().item()
    targets = distiller.teacher.model.targets(teacher, step.ground_truth)
    count = targets.foreground.sum().item()
    assert count > 1 and step.targets.normalizer != count
    loss = distiller.kd.crosskd(student, teacher, step)["loss_cls"]
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


def test_with_equal_anchors_the_students_targets_count():
    distiller = distiller_of(tiny_gfl(), tiny_atss(seed=1, num_classes=7))
    student, teacher, step = passes(distiller)
    loss = distiller.kd.crosskd(student, teacher, step)["loss_cls"]
    step.targets.normalizer = step.targets.normalizer * 2
    assert distiller.kd.crosskd(student, teacher, step)["loss_cls"] == loss / 2
    step.targets.labels = torch.full_like(step.targets.labels, -1)
    del step.targets.valid, step.targets.foreground
    assert all(x == 0 for x in distiller.kd.crosskd(student, teacher, step).values())


@pytest.mark.parametrize("normalize", ["positives", "quality", "predictions"])
def test_in_an_empty_batch_losses_stay_of_the_size_of_others(normalize: str):
    distiller = distiller_of(tiny_fcos(), tiny_fcos(seed=1), normalize=normalize)
    usual, empty = distiller(batch()), distiller(batch("all empty"))
    for term in TERMS:
        assert 0 < empty[term] < 1e3 * usual[term]


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("build", [tiny_retinanet, tiny_gfl])
def test_a_narrower_student_gets_adapters_that_are_trained_and_not_in_it(build, align, depth):
    student, teacher = build(), build(seed=1, channels=32)
    distiller = distiller_of(student, teacher, align=align, depth=depth)
    parts = ("weight",) if align else ("weight", "bias")
    names = {f"kd.crosskd.adapters.{b}.{part}" for b in ("cls", "bbox") for part in parts}
    assert set(distiller.state_dict()) == {*student.state_dict(), *names}
    assert distiller.state_dict()["kd.crosskd.adapters.cls.weight"].shape == (32, 16, 1, 1)
    before = {name: distiller.state_dict()[name].clone() for name in names}
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.01)
    losses = distiller(batch())
    (losses[TERMS[0]] + losses[TERMS[1]]).backward()
    assert student.backbone.bottom_up.res3[0].conv1.weight.grad.abs().sum() > 0
    optimizer.step()
    assert all(not torch.equal(distiller.state_dict()[name], before[name]) for name in names)
    restored = distiller_of(build(), teacher, align=align, depth=depth)
    restored.load_state_dict(distiller.state_dict())
    for name in names:
        assert torch.equal(restored.state_dict()[name], distiller.state_dict()[name])


@pytest.mark.parametrize("options", [{"cls_weight": 0.0}, {"loc_weight": 0.0}], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_every_parameter_has_a_gradient_also_of_a_term_that_is_left_out(options: dict, case: str):
    distiller = distiller_of(tiny_gfl(), tiny_gfl(seed=1, channels=32), **options)
    sum(distiller(batch(case)).values()).backward()
    for name, parameter in distiller.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_detectors_of_equal_width_get_no_adapters():
    student = tiny_fcos()
    distiller = distiller_of(student, tiny_retinanet(seed=1))
    assert set(distiller.state_dict()) == set(student.state_dict())


def test_adapters_train_under_autocast_and_with_a_teacher_in_bfloat16():
    teacher = tiny_retinanet(seed=1, channels=32)
    crosskd = CrossKD(depth=1)
    distiller = distill(tiny_retinanet(), teacher, precision="bfloat16", crosskd=crosskd)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = distiller(batch())
    sum(losses.values()).backward()
    for loss in losses.values():
        assert loss.isfinite() and loss.dtype == torch.float32
    for parameter in distiller.kd.parameters():
        assert parameter.dtype == torch.float32 and parameter.grad.isfinite().all()


@pytest.mark.parametrize("brought", [False, True])
def test_unlike_anchors_go_by_the_teachers_class_of_the_same_name(brought):
    def losses(names: str, reverse: bool) -> dict:
        student = tiny_retinanet(class_names=[*"abcd"])
        teacher = Teacher(tiny_ddod(seed=1, class_names=[*names]), None)
        method = CrossKD(depth=1, quality_weight=1.0)
        methods = {"m": FromTeacher(teacher=teacher, method=method) if brought else method}
        own = None if brought else teacher
        model = Distiller(student=student, teacher=own, methods=MethodSet(**methods))
        inputs = batch()
        for image in inputs if reverse else ():
            image["instances"].gt_classes = 3 - image["instances"].gt_classes
        found = model(inputs)
        return {name: loss.item() for name, loss in found.items() if name.startswith("kd_")}

    found = losses("dcba", False)
    assert found == losses("abcd", True) != losses("abcd", False)
