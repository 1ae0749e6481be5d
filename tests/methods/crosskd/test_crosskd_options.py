"""Options of CrossKD, and detectors, that do not fit."""

from __future__ import annotations

import pytest

from dense_kd import CrossKD, DistillationError, Distiller, MethodSet, Teacher
from helpers.builders import (
    tiny_atss,
    tiny_autoassign,
    tiny_ddod,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loc_loss": "l1"}, "loc_loss='l1'"),
        ({"loc_weighting": "max"}, "loc_weighting='max'"),
        ({"normalize": "none"}, "normalize='none'"),
        ({"align_on": "relu"}, "align_on='relu'"),
        ({"cls_weight": -1.0}, "cls_weight=-1.0"),
        ({"cls_weight": 0.0, "loc_weight": 0.0}, "one above it"),
        ({"depth": -1}, "depth=-1: expected"),
        ({"depth": 1.0}, "depth=1.0: expected"),
        ({"depth": {"cls": 1}}, "one for each of"),
        ({"depth": {"cls": 1, "reg": 1}}, "one for each of"),
    ],
)
def test_bad_options_say_what_is_expected(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        CrossKD(**options)


MISMATCHES = {
    "a student of fewer blocks": (
        lambda: (tiny_fcos(depth=1), tiny_fcos(depth=2)),
        {"depth": 2},
        r"towers of the student have 1 blocks; give depth=1 or less",
    ),
    "a teacher of fewer blocks": (
        lambda: (tiny_fcos(depth=2), tiny_gfl(depth=1)),
        {"depth": {"cls": 1, "bbox": 2}},
        r"depth=2 of the branch 'bbox', but the towers of the teacher have 1 blocks",
    ),
    "other levels": (
        lambda: (tiny_fcos(num_levels=5), tiny_fcos(num_levels=3)),
        {"depth": 1},
        r"student has level strides \[8, 16, 32, 64, 128\] and the teacher \[8, 16, 32\]",
    ),
    "no distribution": (
        lambda: (tiny_gfl(), tiny_atss()),
        {"depth": 1, "loc_loss": "kl"},
        "teacher's ATSS predicts none; use loc_loss='auto'",
    ),
    "no quality branch": (
        lambda: (tiny_atss(), tiny_gfl()),
        {"depth": 1, "quality_weight": 1.0},
        "quality_weight=1.0, but the teacher's GFL has no quality branch",
    ),
    "no centreness of the student": (
        lambda: (tiny_gfl(), tiny_atss()),
        {"depth": 1, "normalize": "quality"},
        "the student's GFL has no centreness branch; use normalize='positives'",
    ),
    "objectness, which has no targets": (
        lambda: (tiny_autoassign(), tiny_autoassign()),
        {"depth": 1, "normalize": "quality"},
        "the student's AutoAssign has no centreness branch",
    ),
    "overlaps, which depend on the predictions": (
        lambda: (tiny_ddod(), tiny_ddod()),
        {"depth": 1, "normalize": "quality"},
        "the student's DDOD has no centreness branch",
    ),
    "no centreness of the teacher": (
        lambda: (tiny_atss(), tiny_retinanet()),
        {"depth": 1, "normalize": "quality"},
        "the teacher's RetinaNet has no centreness branch",
    ),
}


@pytest.mark.parametrize("what", MISMATCHES)
def test_detectors_that_do_not_fit_are_an_error_when_the_distiller_is_built(what: str):
    build, options, message = MISMATCHES[what]
    student, teacher = build()
    methods = MethodSet(crosskd=CrossKD(**options))
    with pytest.raises(DistillationError, match=message):
        Distiller(student=student, teacher=Teacher(teacher, None), methods=methods)
