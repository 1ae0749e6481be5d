"""Which maps stand side by side, and on which scale."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from dense_kd import BCKD, CrossKD, Distiller, MethodSet, Teacher
from dense_kd.diagnostics.errors import DiagnosticsError
from dense_kd.diagnostics.figures import (
    bckd_figure,
    crosskd_figure,
    gradient_figure,
    pgd_figure,
    tid_figure,
)
from dense_kd.diagnostics.methods_of_pair import method_of
from dense_kd.diagnostics.passes import Passes, image_of, run_passes
from dense_kd.methods import KDMethod
from dense_kd.methods.base.kd_method import Needs
from helpers.builders import batch, instances, tiny_fcos
from helpers.hand_made import hand_made_pass

LEVELS = ["P3", "P4"]
SIZES = [(1, 2), (1, 1)]
STUDENT = hand_made_pass([[[0.1, 0.2], [0.5, 0.1]], [[0.2, 0.2]]], SIZES)
TEACHER = hand_made_pass([[[0.2, 0.3], [0.2, 0.4]], [[0.9, 0.6]]], SIZES)
OTHER = hand_made_pass([[[0.1, 0.1], [0.2, 0.4]], [[0.9, 0.5]]], SIZES)
TRUTH = instances((8, 16), [[0, 0, 8, 8], [1, 1, 15, 7]], [0, 1])


def model(num_classes: int = 2, **options) -> Distiller:
    teacher = Teacher(tiny_fcos(seed=1, num_classes=2, **options), None)
    methods = MethodSet(cross=CrossKD(depth=1), **({"bckd": BCKD()} if num_classes == 2 else {}))
    return Distiller(student=tiny_fcos(num_classes=num_classes), teacher=teacher, methods=methods)


MODEL = model()


def levels_of(row) -> list:
    return [np.round(panel.values, 5).tolist() for panel in row.panels]


def test_bckd_has_a_row_and_with_another_student_what_the_first_one_wins():
    figure = bckd_figure(MODEL, Passes(STUDENT, TEACHER, LEVELS))
    assert [row.name for row in figure.rows] == ["student"] and figure.boxes.shape == (0, 4)
    figure = bckd_figure(MODEL, Passes(STUDENT, TEACHER, LEVELS), OTHER)
    student, other, reduction, between = figure.rows
    assert levels_of(other) == [[[pytest.approx(0.3), 0]], [[pytest.approx(0.1)]]]
    assert levels_of(reduction) == [[[pytest.approx(0.1), 0]], [[pytest.approx(-0.3)]]]
    assert levels_of(between) == [[[pytest.approx(0.1), 0]], [[pytest.approx(0.4)]]]
    assert (reduction.low, reduction.high, reduction.signed) == (-0.4, 0.4, True)
    assert (student.low, student.high, student.signed) == (0, 0.4, False)
    assert [panel.place for panel in student.panels] == ["P3 (stride 8)", "P4 (stride 16)"]
    assert {"student_p3", "other_p4", "reduction_p3"} < {*figure.arrays()}


def test_crosskds_scores_have_one_scale_and_stand_below_the_targets():
    passes = Passes(STUDENT, TEACHER, LEVELS, cross=OTHER)
    figure = crosskd_figure(MODEL, passes)
    assert [row.name for row in figure.rows] == ["teacher", "cross", "student"]
    assert [row.high for row in figure.rows] == [pytest.approx(0.9)] * 3
    figure = crosskd_figure(MODEL, passes, 1, "disk")
    assert [row.high for row in figure.rows] == [pytest.approx(0.6)] * 3
    assert "disk" in figure.title and figure.rows[0].unit == "score of disk"
    real = run_passes(
        MODEL, [dict(batch()[0], instances=instances((64, 96), [[4, 4, 60, 50]], [1]))]
    )
    first = crosskd_figure(MODEL, real).rows[0]
    assert first.name == "targets" and max(panel.values.max() for panel in first.panels) == 1
    assert max(p.values.max() for p in crosskd_figure(MODEL, real, 0).rows[0].panels) == 0


def test_a_class_of_the_student_is_another_number_in_the_teacher():
    teacher = Teacher(tiny_fcos(seed=1, num_classes=2, class_names=["a", "b"]), None)
    student = tiny_fcos(num_classes=3, class_names=["x", "b", "a"])
    methods = MethodSet(cross=CrossKD(depth=1))
    pair = Distiller(student=student, teacher=teacher, methods=methods)
    ours = hand_made_pass([[[0.9, 0.2, 0.3]]], [(1, 1)])
    theirs = hand_made_pass([[[0.4, 0.5]]], [(1, 1)])
    passes = Passes(ours, theirs, ["P3"])
    found = {c: [levels_of(r)[0][0][0] for r in crosskd_figure(pair, passes, c).rows]
             for c in (1, 2, None)}  # fmt: skip
    assert found == {
        1: [pytest.approx(0.5), pytest.approx(0.2)],
        2: [pytest.approx(0.4), pytest.approx(0.3)],
        None: [pytest.approx(0.5), pytest.approx(0.3)],  # without x, which the teacher lacks
    }
    with pytest.raises(DiagnosticsError, match=r"category=0: the teacher has no .* \[1, 2\]"):
        crosskd_figure(pair, passes, 0)


def test_where_no_class_is_known_to_correspond_heat_maps_are_of_all_of_each():
    pair = model(num_classes=3)
    ours = hand_made_pass([[[0.9, 0.2, 0.3]]], [(1, 1)])
    passes = Passes(ours, hand_made_pass([[[0.4, 0.5]]], [(1, 1)]), ["P3"])
    rows = crosskd_figure(pair, passes).rows
    assert [levels_of(row)[0][0][0] for row in rows] == [pytest.approx(0.5), pytest.approx(0.9)]
    with pytest.raises(DiagnosticsError, match="which classes correspond is not known"):
        crosskd_figure(pair, passes, 1)
    with pytest.raises(DiagnosticsError, match="BCKD cannot compare"):
        bckd_figure(pair, passes)


def test_pgd_shows_the_largest_object_or_the_one_that_is_asked_for():
    passes = Passes(STUDENT, TEACHER, LEVELS, [TRUTH])
    figure = pgd_figure(MODEL, passes)
    assert figure.boxes.tolist() == [[1, 1, 15, 7]]
    assert [row.name for row in figure.rows] == [
        "quality", "box", "box_gaussian", "center", "topk", "kde", "ours",
    ]  # fmt: skip
    assert levels_of(figure.rows[1]) == [[[1, 1]], [[1, 1]], [[0]]]  # all levels, P3, P4
    assert figure.rows[1].panels[0].place == "all levels"
    assert figure.rows[0].high == figure.rows[0].panels[0].values.max() < 1
    figure = pgd_figure(MODEL, passes, 0)
    assert figure.boxes.tolist() == [[0, 0, 8, 8]]
    assert levels_of(figure.rows[1]) == [[[1, 0]], [[1, 0]], [[0]]]
    assert figure.arrays()["box_all_levels"].tolist() == [[1, 0]]


def test_tid_shows_both_tasks_and_areas():
    figure = tid_figure(MODEL, Passes(STUDENT, TEACHER, LEVELS, [TRUTH[:1]]))
    rows = {row.name: row for row in figure.rows}
    assert [*rows] == [
        "cls", "loc", "importance", "student_importance", "key", "weak", "weights",
    ]  # fmt: skip
    assert rows["importance"].high == rows["student_importance"].high == 2
    assert levels_of(rows["loc"])[0] == [[2, pytest.approx(0.4)]]
    assert figure.boxes.tolist() == [[0, 0, 8, 8]]


def test_figures_of_objects_say_what_an_image_lacks():
    bare = Passes(STUDENT, TEACHER, LEVELS)
    for make in (pgd_figure, tid_figure):
        with pytest.raises(DiagnosticsError, match="needs the objects .* no annotations; take"):
            make(MODEL, bare)
    empty = Passes(STUDENT, TEACHER, LEVELS, [TRUTH[:0]])
    with pytest.raises(DiagnosticsError, match="no object is annotated"):
        pgd_figure(MODEL, empty)
    rows = tid_figure(MODEL, empty).rows
    assert {panel.values.max() for row in rows for panel in row.panels} == {0}
    assert {row.high for row in rows} == {1}  # a scale has two ends
    assert bckd_figure(MODEL, empty).boxes.shape == (0, 4)


def test_real_passes_give_maps_of_the_size_of_their_levels():
    passes = image_of(run_passes(MODEL, _annotated(), method_of(MODEL, CrossKD)), 1)
    for make in (bckd_figure, crosskd_figure, pgd_figure, tid_figure):
        figure = make(MODEL, passes)
        for row in figure.rows:
            assert [panel.values.shape for panel in row.panels[-3:]] == [(12, 12), (6, 6), (3, 3)]
            assert all(np.isfinite(panel.values).all() for panel in row.panels)


def _annotated() -> list[dict]:
    inputs = batch()
    for image in inputs:
        image["instances"].gt_classes %= 2
    return inputs


class OfTaps(KDMethod):
    """It reads the first features of both towers."""

    needs = Needs(taps=(("cls", 1), ("bbox", 1)))

    def forward(self, student, teacher, step):
        raise NotImplementedError


def test_gradients_are_those_at_the_features_that_a_loss_acts_on():
    p3, p4 = (torch.ones(1, 2, *size, requires_grad=True) for size in SIZES)
    of_cls, of_bbox = ([2 * p3, 2 * p4] for _ in range(2))
    student = dataclasses.replace(
        STUDENT, features=[p3, p4], taps={("cls", 1): of_cls, ("bbox", 1): of_bbox}
    )
    losses = {
        # (3, 4) over the channels of the second cell of P3.
        "loss_cls": 3 * p3[0, 0, 0, 1] + 4 * p3[0, 1, 0, 1],
        # 6 and 8 at the first cell of P3 of each tower, and at the pyramid twice as much.
        "kd_both_loss": 6 * of_cls[0][0, 0, 0, 0] + 8 * of_bbox[0][0, 1, 0, 0],
        "kd_bckd_loss": p4[0, 1, 0, 0] * 2,
    }
    teacher = Teacher(tiny_fcos(seed=1), None)
    methods = MethodSet(both=OfTaps(), bckd=BCKD())
    pair = Distiller(student=tiny_fcos(), teacher=teacher, methods=methods)
    rows = {row.name: row for row in gradient_figure(pair, losses, student, LEVELS).rows}
    detection, both, bckd = (rows[name] for name in ("detection", "both", "bckd"))
    assert levels_of(detection) == [[[0, 5]], [[0]]] and detection.high == 5
    assert levels_of(both) == [[[10, 0]], [[0]]] and both.high == 10
    assert levels_of(bckd) == [[[0, 0]], [[2]]] and bckd.high == 2
    assert detection.title == "detection losses, pyramid" and bckd.title == "BCKD, pyramid"
    assert both.title == "OfTaps, cls tower 1 and bbox tower 1"
    assert [panel.place for panel in both.panels] == ["P3 (stride 8)", "P4 (stride 16)"]
    assert p3.grad is None


def test_gradients_of_a_loss_that_is_0_have_a_scale_all_the_same():
    features = [torch.ones(1, 2, *size, requires_grad=True) for size in SIZES]
    student = dataclasses.replace(STUDENT, features=features)
    losses = {"loss_cls": sum(level.sum() * 0 for level in features)}
    (row,) = gradient_figure(MODEL, losses, student, LEVELS).rows
    assert levels_of(row) == [[[0, 0]], [[0]]] and row.high == 1
