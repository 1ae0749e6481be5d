"""The page of a dry run, whatever parts of it there are."""

from __future__ import annotations

import pytest

from dense_kd.engine.dry_run import DryRun
from dense_kd.engine.dry_run.results import DataFacts, LossFacts
from dense_kd.engine.dry_run.text import duration


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0 ms"),
        (0.0123, "12 ms"),
        (0.9999, "1.0 s"),
        (9.9, "9.9 s"),
        (9.96, "10 s"),
        (59.7, "1 min"),
        (185, "3 min 5 s"),
        (7620, "2 h 7 min"),
        (3600 * 24 * 3 + 3600 * 4 + 59, "3 d 4 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds, text):
    assert duration(seconds) == text


def test_nothing_found_is_a_page_that_fits():
    assert DryRun("cpu").text() == "fits"


def test_the_lines_of_a_problem_stay_together():
    run = DryRun("cpu", problems=["a file\n  with a list", "another"], warnings=["one\ntwo", "b"])
    assert run.text().splitlines() == [
        "warnings     - one",
        "               two",
        "             - b",
        "does not fit: 2 problems",
        "- a file",
        "    with a list",
        "- another",
    ]


def test_a_dataset_that_tells_nothing_is_named_nevertheless():
    run = DryRun("cpu", train=DataFacts([]), test=DataFacts(["own_val"], num_images=1200))
    assert run.text().splitlines()[:2] == [
        "data         train  a loader of its own",
        "             test   own_val: 1,200 images",
    ]


def test_losses_whose_gradient_is_not_measured_have_a_value():
    run = DryRun("cpu", losses=[LossFacts("loss_cls", float("nan")), LossFacts("loss_loc", 1.25)])
    assert run.text().splitlines()[:3] == [
        "losses       term      value",
        "             loss_cls    nan",
        "             loss_loc   1.25",
    ]
    assert run.to_dict()["losses"][0]["value"] is None
