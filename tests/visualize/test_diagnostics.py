"""What the pictures of diagnostics show."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dense_kd.visualize.diagnostics import (
    draw_conflicts,
    draw_distances,
    draw_masking,
    draw_precision,
    save_diagnostics,
)

CONFLICTS = {
    "GFL": {"thresholds": [0.25, 0.5, 0.75], "ratios": [3.0, 1.5, None]},
    "RetinaNet": {"thresholds": [0.25, 0.5, 0.75], "ratios": [6.0, 4.0, 2.0]},
}
MASKING = {"GFL": {"masked": [0.0, 1.0, 50.0], "ap": [40.0, 20.0, 1.0], "ap50": [60.0, 30.0, 2.0]}}
RUN = {"iteration": [20, 40], "teacher": [0.3, 0.2], "truth": [0.5, 0.4], "ap": [10.0, 12.0]}


def drawn(draw, content):
    axes = Figure().subplots()
    draw(axes, content)
    return {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in axes.lines}, axes


def test_each_teacher_has_its_conflicts_over_the_threshold_and_a_gap_where_none_is_defined():
    curves, axes = drawn(draw_conflicts, CONFLICTS)
    np.testing.assert_array_equal(curves["GFL"][1], [3.0, 1.5, math.nan])
    np.testing.assert_array_equal(curves["RetinaNet"], ([0.25, 0.5, 0.75], [6.0, 4.0, 2.0]))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["GFL", "RetinaNet"]
    assert axes.get_ylim()[0] == 0
    assert len({line.get_marker() for line in axes.lines}) == 2  # also where colours are not seen


def test_masking_is_drawn_at_what_was_masked():
    curves, axes = drawn(draw_masking, MASKING)
    np.testing.assert_array_equal(curves["GFL"], ([0.0, 1.0, 50.0], [40.0, 20.0, 1.0]))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1", "50"]


def test_distances_and_ap_are_drawn_over_the_iterations():
    curves, _ = drawn(draw_distances, RUN)
    np.testing.assert_array_equal(curves["to the teacher"], ([20, 40], [0.3, 0.2]))
    np.testing.assert_array_equal(curves["to the labels"], ([20, 40], [0.5, 0.4]))
    curves, _ = drawn(draw_precision, RUN)
    np.testing.assert_array_equal(curves["AP"], ([20, 40], [10.0, 12.0]))


def test_a_picture_has_a_panel_for_each_part(tmp_path):
    file = tmp_path / "pictures" / "all.png"
    save_diagnostics(str(file), {"conflicts": CONFLICTS, "masking": MASKING, "distances": RUN})
    assert Image.open(file).size == (4 * 600, 480)


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf"):
        save_diagnostics(str(tmp_path / "e.gif"), {"distances": RUN})
