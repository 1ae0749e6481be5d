"""What is listed is what the package has, in the words of its classes and configs."""

from __future__ import annotations

import inspect
from unittest import mock

import pytest

import dense_kd
from dense_kd.detectors import DenseDetector
from dense_kd.engine.building import count_parameters
from dense_kd.listing.configs import NothingListedError, configs
from dense_kd.listing.detectors import detectors
from dense_kd.listing.methods import methods, needs_in_words
from dense_kd.listing.teachers import teachers
from dense_kd.listing.texts import first_sentence
from dense_kd.methods import Needs
from dense_kd.recipes import PUBLISHED
from helpers.builders import tiny_fcos
from helpers.configs import RUNS
from helpers.method_cases import ALL


def test_every_method_is_listed_with_what_it_says_and_needs():
    entries = {entry.name: entry for entry in methods()}
    assert list(entries) == sorted(ALL, key=str.lower)
    for name, entry in entries.items():
        doc = " ".join(inspect.getdoc(getattr(dense_kd, name)).replace("``", "").split())
        assert doc.startswith(entry.summary) and len(entry.summary) > 30
        assert entry.paper and entry.needs
    assert entries["LD"].needs == [
        "the same anchors", "the same classes or a class map", "two classes or more",
        "distributions over distances", "ground truth",
    ]  # fmt: skip
    assert "towers of 3 or more blocks (cls and bbox)" in entries["CrossKD"].needs
    assert "Yang et al., ICCV 2023" in entries["BCKD"].paper


def test_every_need_has_words_but_for_predictions_and_features_which_every_teacher_has():
    for name in Needs.__dataclass_fields__.keys() - {"predictions", "features"}:
        value = (("cls", 2),) if name.endswith("taps") else True
        assert len(needs_in_words(Needs(**{name: value}))) == 1
    assert needs_in_words(Needs()) == []


def test_the_detectors_that_are_exported_are_listed_with_the_size_of_their_baseline():
    entries = {entry.name: entry for entry in detectors()}
    exported = {n for n in dense_kd.__all__ if inspect.isclass(getattr(dense_kd, n))}
    assert set(entries) == {n for n in exported if issubclass(getattr(dense_kd, n), DenseDetector)}
    assert entries["RetinaNet"].config == "retinanet/r50_1x_ms.py"
    assert entries["RetinaNet"].parameters == 37_915_572
    assert entries["GFL"].summary.startswith("GFL (Li et al., ")


def test_parameters_are_counted_as_a_model_has_them():
    model = tiny_fcos()
    with mock.patch("dense_kd.engine.building.instantiate", lambda _: model):
        assert count_parameters(None) == sum(p.numel() for p in model.parameters())


def test_teachers_are_those_with_public_weights_with_the_ap_of_their_config():
    entries = {entry.config: entry for entry in teachers(["gfl", "retinanet/r101*"])}
    assert set(entries) == {
        "gfl/r101_2x_ms.py", "gfl/r50_1x.py", "gfl/r50_2x_ms.py", "retinanet/r101_2x_ms.py"
    }  # fmt: skip
    for name, entry in entries.items():
        assert entry.weights == PUBLISHED[name]
    assert [entry.ap for entry in entries.values()] == [44.7, 40.2, 42.9, 40.4]


def test_configs_are_listed_by_name_with_their_first_sentence():
    entries = {entry.name: entry.summary for entry in configs()}
    assert sorted(entries) == RUNS and all(entries.values())
    assert entries["bckd/gfl_r101_r50_1x.py"] == (
        "BCKD, Tables 1 and 3, GFL R101 to R50, 1x: 40.1 -> 43.2 AP"
    )
    some = [entry.name for entry in configs(["bckd/*R18*", "quickstart/st"])]
    assert some == ["bckd/gfl_r101_r18_1x.py", "bckd/gfl_r18_r18_1x.py", "quickstart/student.py"]


@pytest.mark.parametrize(
    "pattern, said",
    [
        ("bkcd/gfl_r101_r50_1x", "did you mean bckd/gfl_r101_r50_1x.py"),
        ("*nothing*", "leave it out to see all"),
    ],
)
def test_a_pattern_that_nothing_meets_is_an_error(pattern, said):
    with pytest.raises(NothingListedError, match="nothing of [0-9]+ is called") as error:
        configs(["gfl", pattern])
    assert said in str(error.value)


@pytest.mark.parametrize(
    "docstring, sentence",
    [
        ("One (Yang et al. 2023). Two.", "One (Yang et al. 2023)"),
        ("AP is 40.1 with ``r50_1x.py``,\n    and :class:`.Teacher` has\n    more.\n\nRest.",
         "AP is 40.1 with r50_1x.py, and Teacher has more"),
        ("Ends without a stop", "Ends without a stop"),
        (None, ""),
    ],
)  # fmt: skip
def test_the_first_sentence_is_found(docstring, sentence):
    assert first_sentence(docstring) == sentence
