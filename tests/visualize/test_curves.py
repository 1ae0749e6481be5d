"""Curves of any runs: bands over seeds, panels that stay legible, labels as they were given."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from dense_kd.visualize import curves as module
from dense_kd.visualize.curves import curves_as_svg, diagnostics_as_svg


def lines(*losses, **terms):
    return [
        {"iteration": 10 * i, "lr": 0.1, "loss_cls": loss, **terms} for i, loss in enumerate(losses)
    ]


def panel(curves, title):
    """The axes of a panel."""
    (found,) = (each for each in module._panels(curves) if each.title == title)
    axes = Figure().add_subplot()
    module._draw(axes, found, module._colours(curves))
    return axes


def test_a_band_reaches_from_the_least_to_the_greatest_seed_around_their_mean():
    axes = panel({"a": [lines(4, 2), lines(6, 3), lines(2, 1)]}, "Detection loss")
    (line,), (band,) = axes.lines, axes.collections
    assert line.get_xydata().tolist() == [[0, 4], [10, 2]]
    corners = np.unique(band.get_paths()[0].vertices, axis=0).tolist()
    assert corners == [[0, 2], [0, 6], [10, 1], [10, 3]]


def test_one_seed_has_no_band_and_a_shorter_seed_counts_as_far_as_it_came():
    assert not panel({"a": [lines(4, 2)]}, "Detection loss").collections
    axes = panel({"a": [lines(4, 2), lines(6)]}, "Detection loss")
    assert axes.lines[0].get_xydata().tolist() == [[0, 5], [10, 2]]


def test_the_detection_loss_is_the_sum_of_its_terms_without_the_distillations():
    run = lines(4, 2, loss_box=1, kd_bckd_loss_cls=9)
    assert panel({"a": [run]}, "Detection loss").lines[0].get_ydata().tolist() == [5, 3]


def test_a_value_that_was_not_finite_is_a_gap_and_no_error():
    axes = panel({"a": [lines(4, None, 2)]}, "Detection loss")
    assert axes.lines[0].get_xdata().tolist() == [0, 20]
    assert len(curves_as_svg({"a": [lines(4, None, 2)]})) == 3


def test_ap_has_a_panel_where_it_was_evaluated_more_than_once():
    run = [*lines(4, 2), {"iteration": 5, "bbox/AP": 1.0}, {"iteration": 20, "bbox/AP": 3.0}]
    axes = panel({"a": [run]}, "AP on the images for evaluation")
    assert axes.lines[0].get_xydata().tolist() == [[5, 1], [20, 3]]
    titles = [title for title, _ in curves_as_svg({"a": [run[:-1]]})]
    assert titles == ["Detection loss", "Detection loss by term", "Learning rate"]


def test_terms_have_a_panel_each_where_their_lines_would_be_too_many():
    runs = {str(i): [lines(4, 2, loss_box=1, loss_iou=2)] for i in range(3)}
    titles = [each.title for each in module._panels(runs)]
    assert [title for title in titles if "by term" in title] == [
        "Detection loss by term: loss_box",
        "Detection loss by term: loss_cls",
        "Detection loss by term: loss_iou",
    ]


def test_each_distillation_of_several_has_its_panel():
    runs = {name: [lines(4, **{f"kd_{name}_loss": 1})] for name in ("bckd", "pkd")}
    titles = [each.title for each in module._panels({**runs, "alone": [lines(4)]})]
    assert {"Distillation loss by term: bckd", "Distillation loss by term: pkd"} <= set(titles)


def test_diagnostics_are_drawn_by_family_and_only_they():
    scalars = {"diag/agreement_p3": 0.5, "diag/agreement_p4": 0.4, "diag/tower_share_a": 0.1,
               "diag/conflicts_per_positive": 3, "diag/conflicts_per_location": 0.1}  # fmt: skip
    figures = dict(diagnostics_as_svg({"a": [lines(1, 2, **scalars)]}))
    apart = ["conflicts per location", "conflicts per positive", "tower share"]
    assert [*figures] == ["agreement", *apart]
    assert ">agreement_p4<" in figures["agreement"] and "loss" not in figures["tower share"]
    assert diagnostics_as_svg({"a": [lines(1, 2)]}) == []


def test_colours_of_known_runs_are_kept_and_others_have_their_own():
    colours = module._colours({"teacher": [], "distilled": [], "x": [], "y": []})
    assert colours["teacher"] == "#8a8f98" and colours["distilled"] == "#2f8fe0"
    shown = [colours[name] for name in ("teacher", "distilled", "x", "y")]
    assert len(set(shown)) == 4


@pytest.mark.parametrize("name", ["$a_1$", "_hidden", "<b>&\"'", "$"])
def test_a_label_is_shown_as_it_was_given(name):
    (_, svg), *_ = curves_as_svg({name: [lines(4, 2)]})
    shown = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    texts = [text.strip() for text in re.findall(r"<text[^>]*>(.*?)</text>", svg)]
    assert shown in texts or shown.replace("'", "&apos;").replace('"', "&quot;") in texts
