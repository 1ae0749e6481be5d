"""What the pictures of diagnostics show."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dense_kd.visualize.diagnostics import (
    EVALUATIONS,
    draw_conflicts,
    draw_evaluations,
    draw_masking,
    save_diagnostics,
)

CONFLICTS = {
    "GFL": {"thresholds": [0.25, 0.5, 0.75], "ratios": [3.0, 1.5, None]},
    "RetinaNet": {"thresholds": [0.25, 0.5, 0.75], "ratios": [6.0, 4.0, 2.0]},
}
MASKING = {"GFL": {"masked": [0.0, 1.0, 50.0], "ap": [40.0, 20.0, 1.0], "ap50": [60.0, 30.0, 2.0]}}
RUNS = {
    "PKD": {"iteration": [20, 40], "teacher": [0.3, 0.2], "truth": [0.5, 0.4], "ap": [None, 12.0]},
    "CrossKD": {"iteration": [30], "teacher": [0.1], "truth": [0.6], "ap": [14.0]},
}


def drawn(draw, content, **options):
    axes = Figure().subplots()
    draw(axes, content, **options)
    return {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in axes.lines}, axes


def test_each_teacher_has_its_conflicts_over_the_threshold_and_a_gap_where_none_is_defined():
    curves, axes = drawn(draw_conflicts, CONFLICTS)
    np.testing.assert_array_equal(curves["GFL"][1], [3.0, 1.5, math.nan])
    np.testing.assert_array_equal(curves["RetinaNet"], ([0.25, 0.5, 0.75], [6.0, 4.0, 2.0]))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["GFL", "RetinaNet"]
    assert axes.get_ylim()[0] == 0
    assert len({line.get_marker() for line in axes.lines}) == 2  # also where colours are not seen


def test_a_title_is_shown_as_it_is():
    _, axes = drawn(draw_conflicts, {"_$a": CONFLICTS["GFL"]})
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [r" _\$a"]


def test_masking_is_drawn_at_what_was_masked():
    curves, axes = drawn(draw_masking, MASKING)
    np.testing.assert_array_equal(curves["GFL"], ([0.0, 1.0, 50.0], [40.0, 20.0, 1.0]))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1", "50"]


@pytest.mark.parametrize("kind", EVALUATIONS)
def test_every_run_has_its_distances_and_ap_over_its_iterations(kind):
    curves, axes = drawn(draw_evaluations, RUNS, kind=kind)
    for title, run in RUNS.items():
        np.testing.assert_array_equal(curves[title], np.array([run["iteration"], run[kind]], float))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [*RUNS]


def test_a_picture_has_a_panel_for_each_part(tmp_path):
    file = tmp_path / "pictures" / "all.png"
    save_diagnostics(str(file), {"conflicts": CONFLICTS, "masking": MASKING, "distances": RUNS})
    assert Image.open(file).size == (5 * 600, 480)


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf"):
        save_diagnostics(str(tmp_path / "e.gif"), {"distances": RUNS})
