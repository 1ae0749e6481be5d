"""Pictures of maps that a run draws while it trains: where in its folder they are."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..checkpoint import replace_atomically, saving

__all__ = ["FOLDER", "DrawnMap", "drawn_maps", "remove_drawn", "save_drawn"]

FOLDER = "training_maps"
"""Of a run's folder; in it are ``<iteration>/<image>/<figure>.jpg``."""

_ITERATION = re.compile(r"\d{7,}")
_SUFFIX = ".jpg"
_QUALITY = 85


@dataclass(frozen=True, order=True)
class DrawnMap:
    """A picture.

    Attributes:
        iteration: after which it was drawn, from 0, as checkpoints are named.
        image: whose maps they are.
        figure: one of :data:`dense_kd.diagnostics.making.FIGURES`.
        path: of the file.
    """

    iteration: int
    image: str
    figure: str
    path: Path


def save_drawn(folder: Path, iteration: int, image: str, figure: str, pixels: Image.Image) -> None:
    """Write a picture, whole or not at all.

    Args:
        folder: of the run.
        iteration, image, figure: see :class:`DrawnMap`; of an image that is given by its path, the
            folder has ``_`` for each ``/``.
        pixels: RGB.
    """
    of_image = folder / FOLDER / f"{iteration:07d}" / image.replace("/", "_")
    place = of_image / f"{figure}{_SUFFIX}"
    with saving(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
    replace_atomically(str(place), lambda file: pixels.save(file, format="JPEG", quality=_QUALITY))


def drawn_maps(folder: Path) -> list[DrawnMap]:
    """Those that are there, by iteration, image and figure.

    Args:
        folder: of the run.
    """
    found = []
    for path in (folder / FOLDER).glob(f"*/*/*{_SUFFIX}"):
        iteration = path.parent.parent.name
        if _ITERATION.fullmatch(iteration) and path.is_file():
            found.append(DrawnMap(int(iteration), path.parent.name, path.stem, path))
    return sorted(found)


def remove_drawn(folder: Path) -> bool:
    """Remove all of a run that is given up; whether there were any.

    Args:
        folder: of the run.
    """
    there = (folder / FOLDER).is_dir()
    if there:
        shutil.rmtree(folder / FOLDER)
    return there
