"""Every method on a GPU: nothing is made on the wrong device, and its cost is known."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch

from dense_kd import Distiller, KDMethod, MethodSet, Teacher, methods
from dense_kd.benchmark.pretended import Pretended, pretended_gpu
from helpers import device_costs
from helpers.builders import (
    batch,
    tiny_atss,
    tiny_ddod,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)
from helpers.feature_cases import distill
from helpers.method_cases import ALL, PAIRS, VARIANTS, every_method, images_with

OURS = ["cat", "dog", "car", "bus"]
THEIRS = ["bus", "tree", "cat", "sky", "dog"]


@pytest.fixture
def gpu():
    with pretended_gpu() as gpu:
        yield gpu


def assert_there(model: Distiller) -> None:
    """Assert that all of a model and its gradients are on the GPU."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        assert isinstance(tensor, Pretended), name
        assert tensor.grad is None or isinstance(tensor.grad, Pretended), name


@every_method
def test_it_distils_there_and_costs_no_more_than_the_table_says(gpu, name, variant):
    model = device_costs.distiller(name, variant)
    assert_there(model)
    cost = device_costs.of_method(gpu, model)
    device_costs.check("method", " ".join(filter(None, (name, variant))), cost, gpu)
    assert_there(model)
    assert all(parameter.grad is not None for parameter in model.kd.parameters())
    losses = model(images_with([]))
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())


def test_no_method_lets_the_host_wait_but_tid_for_the_areas_of_an_image():
    """Of the two images that are counted, one has objects."""
    for table in device_costs.written().values():
        stops = {name: device_costs.Cost(*cost).stops for name, cost in table["method"].items()}
        assert stops == {name: int(name.startswith("TID")) for name in stops}
        assert len(stops) == len(VARIANTS)


@pytest.mark.parametrize(
    ("name", "variant"), [("LD", ""), ("LD", "joint"), ("PGD", ""), ("TID", "")]
)
def test_what_selects_on_the_cpu_alone_gives_the_losses_and_gradients_of_the_cpu(
    gpu, name, variant
):
    pair, inputs = PAIRS[name][variant], images_with(device_costs.OBJECTS, [])
    model = distill(pair.build(), pair.build(seed=1), getattr(methods, name)(**pair.options))
    results = []
    for twin in (model, copy.deepcopy(model).to("cuda")):
        losses = {key: loss for key, loss in twin(inputs).items() if key.startswith("kd_")}
        sum(losses.values()).backward()
        gradients = [p.grad.cpu() for p in twin.parameters() if p.grad is not None]
        results.append([*(loss.detach().cpu() for loss in losses.values()), *gradients])
    assert len(results[0]) == len(results[1])
    for expected, found in zip(*results):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def takes_class_map(name: str) -> bool:
    return "class_map" in inspect.signature(getattr(methods, name)).parameters


@pytest.mark.parametrize("name", [name for name in ALL if takes_class_map(name)])
def test_a_class_map_is_on_the_gpu_wherever_the_detectors_were(gpu, name):
    pair = next(iter(PAIRS[name].values()))
    for before in (True, False):
        student = pair.build(class_names=OURS).to("cuda" if before else "cpu")
        teacher = pair.build(seed=1, num_classes=5, class_names=THEIRS)
        method = getattr(methods, name)(**{**pair.options, "class_map": "by_name"})
        model = distill(student, teacher, method)
        assert_there(model if before else model.to("cuda"))
    assert all(loss.isfinite() for loss in model(batch()[:1]).values())


def distiller(method: KDMethod | None = None, detector=tiny_gfl, **options) -> Distiller:
    """With detectors of equal widths."""
    return Distiller(
        student=detector(),
        teacher=Teacher(detector(seed=1), None),
        methods=MethodSet(method=method or methods.GIBox()),
        **options,
    )


def test_a_student_and_its_copy_inherit_on_the_gpu(gpu):
    model = distiller(init_student=True).to("cuda")
    average = copy.deepcopy(model)
    model(batch())
    head = model.teacher.model.head.cls_score.weight
    for student in (model.student, average.student):
        assert isinstance(student.head.cls_score.weight, Pretended)
        assert torch.equal(student.head.cls_score.weight, head)
    assert model.kd.student_initialized and average.kd.student_initialized


def test_a_teacher_assigns_the_targets_on_the_gpu(gpu):
    model = distiller(detector=tiny_ddod, targets_from_teacher=True).to("cuda")
    assert all(loss.isfinite() for loss in model(batch("one empty")).values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_teacher_has_its_own_precision_on_the_gpu(gpu, precision):
    student, teacher = tiny_fcos(), Teacher(tiny_fcos(seed=1), None, precision=precision)
    crosskd = methods.CrossKD(depth=1, loc_loss="iou")
    model = Distiller(student=student, teacher=teacher, methods=MethodSet(crosskd=crosskd))
    with torch.autocast("cuda", dtype=torch.bfloat16):
        sum(model.to("cuda")(batch()[:1]).values()).backward()
    images = student.preprocess_image(batch())
    seen = teacher.run(batch(), images, student).features[0]
    assert seen.dtype == getattr(torch, precision)


def test_a_teacher_of_other_images_is_shown_them_on_the_gpu(gpu):
    teacher = tiny_fcos(seed=1, input_format="RGB", pixel_mean=[127.5] * 3, pixel_std=[64.0] * 3)
    model = Distiller(
        student=tiny_fcos(), teacher=Teacher(teacher, None), methods=MethodSet(kd=methods.KD())
    )
    sum(model.to("cuda")(batch()).values()).backward()
    assert len(model.teacher.detect(batch(), "BGR")) == 2


OF_OTHER_KINDS = {
    "several anchors": (lambda: methods.KD(anchors="best"), tiny_retinanet),
    "other classes": (lambda: methods.CrossKD(depth=1), lambda **k: tiny_atss(num_classes=7, **k)),
}


@pytest.mark.parametrize("what", OF_OTHER_KINDS)
def test_a_teacher_of_another_kind_is_learnt_from_there(gpu, what):
    method, teacher = OF_OTHER_KINDS[what]
    losses = distill(tiny_gfl(), teacher(seed=1), method()).to("cuda")(batch())
    sum(losses.values()).backward()
    assert all(loss > 0 for key, loss in losses.items() if key.startswith("kd_"))


def test_a_broken_teacher_is_found_without_waiting_for_it(gpu):
    model = distiller(methods.PKD()).to("cuda")
    next(model.teacher.model.backbone.parameters()).data.view(-1)[0] = float("nan")
    losses = model(batch())
    with pytest.raises(FloatingPointError, match="teacher's pass.*in its features"):
        sum(losses.values()).backward()
        model(batch())
