"""The figures that an image and a pair of detectors allow."""

from __future__ import annotations

import pytest

from dense_kd import BCKD, CrossKD, Distiller, MethodSet, Teacher
from dense_kd.diagnostics.errors import DiagnosticsError
from dense_kd.diagnostics.making import FIGURES, OF_OBJECTS, FigureMaker
from helpers.builders import batch, tiny_fcos, tiny_retinanet


def distiller(student, **methods) -> Distiller:
    teacher = Teacher(tiny_fcos(seed=1), None)
    return Distiller(student=student, teacher=teacher, methods=MethodSet(**methods))


def test_an_annotated_image_has_all_and_another_one_those_without_objects():
    maker = FigureMaker(distiller(tiny_fcos(), bckd=BCKD()))
    figures, left_out = maker.figures(batch()[0])
    assert [*figures] == [*FIGURES] and left_out == {}
    figures, left_out = maker.figures({"image": batch()[0]["image"]})
    assert [*figures] == ["bckd", "crosskd"]
    assert [*left_out] == [*OF_OBJECTS]
    assert all("no annotations" in why for why in left_out.values())
    _, left_out = maker.figures(batch()[0], no_truth="the dataset is gone")
    assert left_out == dict.fromkeys(OF_OBJECTS, "the dataset is gone")


def test_what_the_pair_does_not_allow_is_left_out_with_the_reason():
    """Anchors differ, and the towers in width; heat maps of both can be drawn nevertheless."""
    model = distiller(tiny_retinanet(channels=8), cross=CrossKD(depth=1))
    figures, left_out = FigureMaker(model, ["bckd", "crosskd"]).figures(batch()[0])
    assert [row.name for row in figures["crosskd"].rows] == [
        "targets",
        "teacher",
        "cross",
        "student",
    ]
    assert [*left_out] == ["bckd"] and "BCKD cannot compare" in left_out["bckd"]
    maker = FigureMaker(model, ["crosskd"], untrained={"cross"})
    figures, left_out = maker.figures(batch()[0])
    assert [row.name for row in figures["crosskd"].rows] == ["targets", "teacher", "student"]
    assert "the convolutions that cross trains" in left_out["crosskd"]


def test_gradients_of_parameters_that_no_run_has_trained_are_left_out():
    maker = FigureMaker(
        distiller(tiny_fcos(), pkd=BCKD()), ["bckd", "gradients"], untrained={"pkd"}
    )
    figures, left_out = maker.figures(batch()[0])
    assert [*figures] == ["bckd"] and "parameters that pkd trains" in left_out["gradients"]


@pytest.mark.parametrize("what", [[], ["bckd", "bckd"], ["gradcam"]])
def test_a_figure_that_there_is_not_is_refused(what: list[str]):
    with pytest.raises(
        DiagnosticsError, match="expected one or more of bckd, crosskd, gradients, "
    ):
        FigureMaker(distiller(tiny_fcos(), bckd=BCKD()), what)
