"""Maps that the runs of a report have drawn while they trained, with ``train.maps``."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from ..engine.drawn_maps import FOLDER, DrawnMap, drawn_maps
from ..visualize.drawing import ComparedImage, Panel
from ..visualize.page import Folded, Note, Part, Pictures
from .groups import RunGroup

__all__ = ["MOST_BYTES", "MOST_PICTURES", "training_maps"]

MOST_PICTURES = 12
"""Of a run."""

MOST_BYTES = 4 * 2**20
"""Of the files of a run's pictures together."""


def training_maps(groups: Sequence[RunGroup]) -> list[Part]:
    """The first and the last of each figure and image, as they are in the runs' folders.

    Args:
        groups: of the report; of each the first run that counts is shown.

    Returns:
        [] if no run has drawn any.
    """
    parts: list[Part] = []
    for group in groups:
        run = group.counted[0]
        drawn = drawn_maps(run.folder)
        if drawn:
            place = str(run.folder / FOLDER)
            parts.append(
                Folded(
                    f"Maps of {group.title_of(run)} while it trained", _first_and_last(drawn, place)
                )
            )
    if not parts:
        return []
    note = (
        "What the runs have drawn themselves (train.maps), of each figure the first and the last, "
        "by the weights that they had then."
    )
    return [Note(note), *parts]


def _first_and_last(drawn: Sequence[DrawnMap], place: str) -> list[Part]:
    pairs: dict[tuple[str, str], list[DrawnMap]] = {}
    for each in drawn:
        of_figure = pairs.setdefault((each.image, each.figure), [])
        of_figure[1:] = [each]  # in the order of the iterations
    rows, broken, size, shown = [], [], 0, 0
    for (image, figure), ends in pairs.items():
        of_both = sum(one.path.stat().st_size for one in ends)
        if shown + len(ends) > MOST_PICTURES or size + of_both > MOST_BYTES:
            continue
        size += of_both
        shown += len(ends)
        panels = []
        for one in ends:
            try:
                with Image.open(one.path, formats=["JPEG"]) as picture:
                    picture.load()
            except (OSError, Image.DecompressionBombError) as error:
                broken.append(Note(f"{one.path} cannot be read: {error}.", "warning"))
                continue
            caption = f"after {one.iteration + 1} iterations ({image})"
            panels.append(Panel(figure, picture, caption))
        rows.append(ComparedImage(image, panels))
    left = len(drawn) - shown
    rest = [Note(f"{left} more are in {place}.")] if left else []
    return [*broken, Pictures(rows, wide=True), *rest]
