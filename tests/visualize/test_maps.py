"""Pictures of maps: cells where they are in the image, colours of one scale, and what is said."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from dense_kd.diagnostics.figures import MapFigure, MapPanel, MapRow
from dense_kd.evaluation.errors import EvaluationError
from dense_kd.visualize.maps import blended, draw_maps, save_maps

PIXELS = np.full((16, 24, 3), 128, np.uint8)
GREY = np.full((4, 6, 3), 0.5)
FINE = MapPanel("P3", np.array([[0, 1, 2, 9], [2, 1, 0, 9]], np.float32), 8)  # 9: in the padding
COARSE = MapPanel("P5", np.array([[1]], np.float32), 32)
ROWS = [
    MapRow("teacher", "teacher", [FINE, COARSE], "score", 0.0, 2.0),
    MapRow("reduction", "difference", [FINE], "error", -2.0, 2.0, signed=True),
]


def colour(palette: str, share: float) -> list[float]:
    return [0.72 * value + 0.28 * 0.5 for value in colormaps[palette](share)[:3]]


def test_a_cell_has_its_colour_of_the_scale_at_its_place_in_the_image():
    found = blended(GREY, ROWS[0], FINE, (16, 24))
    for y in range(4):
        for x in range(6):
            share = FINE.values[y // 2, x // 2] / 2
            assert found[y, x].tolist() == pytest.approx(colour("cividis", share))


def test_the_middle_of_a_scale_with_a_sign_is_0_and_a_large_cell_covers_all():
    signed = blended(GREY, ROWS[1], FINE, (16, 24))
    assert signed[0, 0].tolist() == pytest.approx(colour("PuOr", 0.5), abs=0.01)
    assert signed[0, 5].tolist() == pytest.approx(colour("PuOr", 1.0))
    found = blended(GREY, ROWS[0], COARSE, (16, 24))
    assert np.allclose(found, colour("cividis", 0.5))


def test_every_panel_names_what_it_shows_and_its_level_and_has_its_scale_below():
    figure = MapFigure("$a$ title", ROWS, np.array([[1, 2, 9, 8]], np.float32))
    (axes,) = draw_maps(PIXELS, figure).axes
    texts = [text.get_text() for text in axes.texts]
    assert texts == [
        r"\$a\$ title",  # which is no formula
        "teacher",
        "teacher, P3 (stride 8)", "0", "score", "2",
        "teacher, P5 (stride 32)", "0", "score", "2",
        "difference",
        "difference, P3 (stride 8)", "-2", "error", "2",
    ]  # fmt: skip
    assert len(axes.images) == 5 + 3  # and a bar for each map
    panel, bar = axes.images[1:3]
    assert bar.get_extent()[:2] == panel.get_extent()[:2]  # as wide, from left to right
    assert bar.get_extent()[3] > panel.get_extent()[2]  # and below: downwards is more
    np.testing.assert_allclose(bar.get_array()[0, 0], colour("cividis", 0.0))
    np.testing.assert_allclose(bar.get_array()[0, -1], colour("cividis", 1.0))
    left, right, bottom, top = axes.images[0].get_extent()
    assert (bottom - top) / (right - left) == pytest.approx(16 / 24)
    box = axes.patches[0]
    assert (box.get_x() - left) / (right - left) == pytest.approx(1 / 24)
    assert box.get_height() / (bottom - top) == pytest.approx(6 / 16)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_pictures_are_written_in_three_formats(suffix: str, tmp_path):
    file = tmp_path / "new" / f"maps{suffix}"
    save_maps(str(file), PIXELS, MapFigure("a title", ROWS))
    if suffix == ".png":
        width, height = Image.open(file).size
        assert width > height > 300
    else:
        assert file.read_bytes()[:5] in (b"<?xml", b"%PDF-")


def test_a_picture_of_another_format_is_refused_before_it_is_drawn(tmp_path):
    with pytest.raises(EvaluationError, match="maps.gif: expected a name that ends with one of"):
        save_maps(str(tmp_path / "maps.gif"), PIXELS, MapFigure("a title", ROWS))
    assert not (tmp_path / "maps.gif").exists()


def test_a_large_image_is_drawn_no_larger_than_a_panel():
    pixels = np.zeros((1600, 800, 3), np.uint8)
    (axes,) = draw_maps(pixels, MapFigure("a title", ROWS)).axes
    assert {image.get_array().shape for image in axes.images[:2]} == {(256, 128, 3)}
