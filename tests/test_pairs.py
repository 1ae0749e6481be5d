"""What a student and its teacher have to be to each other, whatever the methods between them."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from detectron2.config import LazyCall as L

from dense_kd import (
    BCKD,
    KD,
    LD,
    MGD,
    PGD,
    DistillationError,
    Distiller,
    FromTeacher,
    MethodSet,
    PseudoLabels,
    Teacher,
)
from dense_kd.detectors.base.images import CHANNELS
from helpers.builders import (
    batch,
    tiny_atss,
    tiny_backbone,
    tiny_ddod,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)

RGB = {"input_format": "RGB", "pixel_mean": [123.7, 116.3, 103.5], "pixel_std": [58.0] * 3}


def pair(student, teacher, **methods) -> Distiller:
    methods = MethodSet(**(methods or {"bckd": BCKD()}))
    return Distiller(student=student, teacher=Teacher(teacher, None), methods=methods)


def of_format(input_format: str, seed: int = 0):
    channels = CHANNELS[input_format]
    return tiny_fcos(
        seed=seed,
        input_format=input_format,
        pixel_mean=[110.0] * channels,
        pixel_std=[58.0] * channels,
        backbone=L(tiny_backbone)(in_channels=channels),
    )


CONVERTED = {("BGR", "RGB"), ("RGB", "BGR"), ("L", "BGR"), ("L", "RGB")}


@pytest.mark.parametrize("ours", CHANNELS)
@pytest.mark.parametrize("theirs", CHANNELS)
def test_the_teacher_sees_what_the_student_sees_or_is_refused(ours, theirs):
    student, teacher = of_format(ours), of_format(theirs, seed=1)
    if ours != theirs and (ours, theirs) not in CONVERTED:
        with pytest.raises(DistillationError, match=f"{ours!r} cannot be converted to {theirs!r}"):
            pair(student, teacher)
        return
    model = pair(student, teacher)
    inputs = [{**x, "image": x["image"][: CHANNELS[ours]]} for x in batch()]
    shown = [
        x["image"].expand(CHANNELS[theirs], -1, -1)
        if ours == "L"
        else x["image"].flip(0)
        if ours != theirs
        else x["image"]
        for x in inputs
    ]
    expected = teacher.preprocess_image([{"image": image} for image in shown])
    found = model.teacher.run(inputs, student.preprocess_image(inputs), student)
    for a, b in zip(found.logits, teacher.eval().run(expected).logits):
        assert torch.equal(a, b)
    assert all(loss.isfinite() for loss in model(inputs).values())


@pytest.mark.parametrize("make", [tiny_retinanet, tiny_gfl, tiny_ddod])
@pytest.mark.parametrize("options", [{}, RGB], ids=["alike", "RGB"])
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_the_teacher_detects_what_it_gives_in_the_distillation(make, options, precision):
    student, teacher = make(), Teacher(make(seed=1, **options), None, precision=precision)
    inputs = batch()
    dense = teacher.run(inputs, student.preprocess_image(inputs), student)
    expected = teacher.model.results(dense, inputs)
    found = teacher.detect(inputs, student.input_format)
    assert len(found) == len(inputs) and len(found[0]["instances"]) > 0
    for a, b in zip(found, expected):
        assert torch.equal(a["instances"].scores, b["instances"].scores)
        assert torch.equal(a["instances"].pred_boxes.tensor, b["instances"].pred_boxes.tensor)


@pytest.mark.parametrize("options", [{}, RGB], ids=["alike", "RGB"])
@pytest.mark.parametrize("change", ["divisibility", "square"])
def test_backbones_that_pad_unlike_are_refused(options, change):
    student, teacher = tiny_fcos(), tiny_fcos(seed=1, **options)
    if change == "divisibility":
        teacher.backbone._size_divisibility = 64
    else:
        constraints = {"square_size": 128, "size_divisibility": 32}
        kind = type(teacher.backbone)
        teacher.backbone.__class__ = type("Square", (kind,), {"padding_constraints": constraints})
    with pytest.raises(DistillationError, match="pads a batch.*size_divisibility"):
        pair(student, teacher)


def test_a_teacher_of_another_precision_gets_images_of_its_own():
    student, teacher = tiny_fcos().to(torch.bfloat16), tiny_fcos(seed=1)
    inputs = batch()
    dense = Teacher(teacher, None).run(inputs, student.preprocess_image(inputs), student)
    expected = teacher.run(teacher.preprocess_image(inputs))
    assert torch.equal(dense.logits[0], expected.logits[0])


def share_all(student):
    return student


def share_head(student):
    return replaced(student, "head")


def share_one_parameter(student):
    teacher = tiny_fcos(seed=1)
    teacher.head.cls_score.bias = student.head.cls_score.bias
    return teacher


def share_memory(student):
    teacher = tiny_fcos(seed=1)
    teacher.head.cls_score.weight = torch.nn.Parameter(student.head.cls_score.weight.data)
    return teacher


def replaced(student, part: str):
    teacher = tiny_fcos(seed=1)
    setattr(teacher, part, getattr(student, part))
    return teacher


@pytest.mark.parametrize(
    "share",
    [share_all, share_head, share_one_parameter, share_memory],
)
def test_a_teacher_that_is_or_shares_a_part_of_the_student_is_refused(share):
    student = tiny_fcos()
    with pytest.raises(DistillationError, match="same or share.*frozen.*copy.deepcopy"):
        pair(student, share(student))


def test_a_copy_of_the_student_may_teach_it():
    student = tiny_fcos()
    model = pair(student, copy.deepcopy(student))
    sum(model(batch()).values()).backward()
    assert all(p.grad is not None for p in student.parameters() if p.requires_grad)


def test_a_student_that_has_nothing_to_train_is_refused():
    teacher = Teacher(tiny_fcos(), None)
    student = copy.deepcopy(teacher.model)
    with pytest.raises(DistillationError, match="no parameter of the student requires gradient"):
        Distiller(student=student, teacher=teacher, methods=MethodSet(bckd=BCKD()))


def test_one_method_under_two_names_is_refused():
    method = BCKD()
    with pytest.raises(DistillationError, match="'a' and 'b' are one method"):
        MethodSet(a=method, b=method)


def test_methods_with_parameters_belong_to_one_distiller():
    methods = MethodSet(mgd=MGD())
    Distiller(student=tiny_fcos(), teacher=Teacher(tiny_fcos(seed=1), None), methods=methods)
    with pytest.raises(DistillationError, match="'mgd'.*belongs to another Distiller"):
        Distiller(student=tiny_fcos(), teacher=Teacher(tiny_fcos(seed=1), None), methods=methods)


_joint_ld = functools.partial(LD, joint_softmax=True)  # of distances
SOFTMAXES = {
    "LD": (LD, LD),
    "LD joint": (_joint_ld, _joint_ld),
    "KD": (functools.partial(KD, cls_loss="softmax"), KD),
}
"""{name: (what makes a method with softmaxes over classes, what makes it without a class term)}."""


@pytest.mark.parametrize("name", SOFTMAXES)
def test_a_softmax_over_one_class_is_refused(name):
    make, without = SOFTMAXES[name]
    with pytest.raises(DistillationError, match="there is one class.*cls_weight=0"):
        pair(tiny_gfl(num_classes=1), tiny_gfl(seed=1, num_classes=1), m=make())
    with pytest.raises(DistillationError, match="there is one class"):
        pair(tiny_gfl(), tiny_gfl(seed=1), m=make(class_map={0: 0}))
    pair(tiny_gfl(num_classes=1), tiny_gfl(seed=1, num_classes=1), m=without(cls_weight=0.0))
    pair(tiny_gfl(), tiny_gfl(seed=1), m=make(class_map={0: 0, 1: 1}))


def test_methods_that_ask_each_class_by_itself_take_one_class():
    model = pair(tiny_atss(num_classes=1), tiny_atss(seed=1, num_classes=1), kd=KD(), bckd=BCKD())
    inputs = batch()
    for image in inputs:
        image["instances"].gt_classes.zero_()
    losses = model(inputs)
    assert losses["kd_kd_loss_cls"] > 0 and losses["kd_bckd_loss_cls"] > 0


REVERSED = {0: 3, 1: 2, 2: 1, 3: 0}


@pytest.mark.parametrize(
    ("methods", "options", "whose"),
    [
        ({"a": REVERSED}, {"targets_from_teacher": True}, "targets_from_teacher=True"),
        ({"a": REVERSED}, {"pseudo_labels": PseudoLabels(score_thresh=0.4)}, "pseudo_labels"),
        (
            {"a": None},
            {"pseudo_labels": PseudoLabels(score_thresh=0.4, class_map=REVERSED)},
            "pseudo_labels",
        ),
        ({"a": REVERSED, "b": None}, {}, "method 'b'"),
    ],
)
def test_all_of_a_distillation_go_by_one_correspondence_of_classes(methods, options, whose):
    def distiller(options, **class_maps) -> Distiller:
        return Distiller(
            student=tiny_ddod(),
            teacher=Teacher(tiny_ddod(seed=1), None),
            methods=MethodSet(**{n: PGD(class_map=given) for n, given in class_maps.items()}),
            **options,
        )

    with pytest.raises(DistillationError, match=f"by method 'a', and class . by {whose}; give"):
        distiller(options, **methods)
    # Those that agree, or say nothing.
    labels = PseudoLabels(score_thresh=0.4, class_map=REVERSED)
    distiller({"pseudo_labels": labels}, a=REVERSED, b={0: 3})
    distiller({"targets_from_teacher": True}, a={1: 1, 2: 2})


def test_a_teacher_of_a_method_has_classes_of_its_own():
    own = Teacher(tiny_ddod(seed=2), None)
    other = FromTeacher(teacher=own, method=PGD(class_map=REVERSED))
    model = Distiller(
        student=tiny_ddod(),
        teacher=Teacher(tiny_ddod(seed=1), None),
        methods=MethodSet(pgd=PGD(), other=other),
    )
    assert model.counterparts is None and other.counterparts.tolist() == [3, 2, 1, 0]
