"""Images that an export is tried with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.shapes_drawing import draw_image
from ..prediction.folder import find_images

MOST = 3
"""Of the images that are given."""

_SIZES = ((240, 320), (320, 208), (272, 272))


def read_pictures(paths: Sequence[str]) -> list[Path]:
    """The first images of files and folders.

    Raises:
        PredictionError: there are none.
    """
    return list(find_images([Path(path) for path in paths]))[:MOST]


def drawn_pictures() -> list[np.ndarray]:
    """(H, W, 3) RGB each, of several sizes, with objects as those of the generated dataset."""
    rng = np.random.default_rng(0)
    return [draw_image(rng, height, width)[0] for height, width in _SIZES]
