"""What the picture of errors shows."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from dense_kd.evaluation.error_curves import KINDS, RECALL
from dense_kd.visualize.errors import draw_error_curves, draw_error_types, save_errors


def test_bars_are_as_high_as_what_errors_cost_side_by_side():
    runs = {
        title: {"iou": 0.5, "main": {"Cls": base, "Loc": base + 1}, "special": {"FalsePos": 9.0}}
        for title, base in (("a", 1.0), ("b", 3.0))
    }
    axes = Figure().subplots()
    draw_error_types(axes, runs)
    heights = [[bar.get_height() for bar in group] for group in axes.containers]
    assert heights == [[1.0, 2.0, 9.0], [3.0, 4.0, 9.0]]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["Cls", "Loc", "FalsePos"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    edges = sorted(bar.get_x() for group in axes.containers for bar in group)
    assert np.diff(edges)[::2] == pytest.approx(0.4)  # none hides another


def test_curves_lie_one_above_the_other_with_their_areas():
    mean = {kind: np.full_like(RECALL, level) for level, kind in zip(np.linspace(0.4, 1, 7), KINDS)}
    areas = {kind: 100 * curve.mean() for kind, curve in mean.items()}
    axes = Figure().subplots()
    draw_error_curves(axes, "run", {"mean": mean, "areas": areas})
    drawn = [line.get_ydata() for line in axes.lines]
    np.testing.assert_array_equal(drawn, list(mean.values()))
    assert [text.get_text() for text in axes.get_legend().get_texts()][:2] == [
        "C75 40.0",
        "C50 50.0",
    ]


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf"):
        save_errors(str(tmp_path / "e.gif"), {"runs": {}})
