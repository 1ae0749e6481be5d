"""What an earlier run has left where a new one is to write, and what an interrupted one leaves."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from PIL import ExifTags, Image

from ..checkpoint import SaveError
from ..checkpoint.places import check_file, check_folder
from .errors import PredictionError

__all__ = ["check_labels", "earlier_results", "incomplete", "keeping", "mark"]

logger = logging.getLogger(__name__)

_SOFTWARE = next(key for key, name in ExifTags.TAGS.items() if name == "Software")
_MARK = "dense-kd predict"


def incomplete(file: Path) -> Path:
    """Where results go that are not of all images."""
    return file.with_name(f"{file.stem}.incomplete{file.suffix}")


@contextlib.contextmanager
def keeping(file: Path, write: Callable[[Path], str]) -> Iterator[None]:
    """Whatever ends the work within, what it has found is written, under another name.

    Args:
        file: that whole results would be in.
        write: is given the other name, and says how much was written; "" if there was nothing.
    """
    try:
        yield
    except BaseException:
        with contextlib.suppress(SaveError):  # what ended the work is said
            written = write(incomplete(file))
            if written:
                logger.warning(f"not finished: {incomplete(file)} has {written}")
        raise


def mark() -> Image.Exif:
    """What says of a picture that it was drawn here, so that it may be replaced."""
    found = Image.Exif()
    found[_SOFTWARE] = _MARK
    return found


def check_labels(file: Path, overwrite: bool) -> None:
    """Whether labels may be written.

    Args:
        file: to be written.
        overwrite: replace one that is there.

    Raises:
        SaveError: it cannot be written.
        PredictionError: it is there, and not to be replaced.
    """
    check_file(file)
    there = [place for place in (file, incomplete(file)) if os.path.lexists(place)]
    if there and not overwrite:
        raise PredictionError(_refusal(there[0]))


def earlier_results(
    files: Iterable[Path], drawn: Path, *, draw: bool, overwrite: bool, needed: Iterable[Path]
) -> list[Path]:
    """The files that an earlier run has left, which the new one replaces.

    Args:
        files: that results are written to, in one folder.
        drawn: the folder of pictures.
        draw: there will be pictures.
        overwrite: what is there may be replaced.
        needed: images that are read.

    Raises:
        SaveError: nothing can be written there.
        PredictionError: something is there that is not to be replaced.
    """
    for file in files:
        check_file(file)
    if draw:
        check_folder(drawn)
    left = [file for file in files if os.path.lexists(file)]
    pictures = [Path(top, name) for top, _, names in os.walk(drawn) for name in sorted(names)]
    if not overwrite:
        there = [*left, *(pictures if draw else [])]
        if there:
            raise PredictionError(_refusal(there[0]))
        return []
    ours = [picture for picture in pictures if _is_ours(picture)]
    others = sorted({*pictures} - {*ours})
    if draw and others:
        raise PredictionError(
            f"{others[0]} is no picture that dense-kd predict of this version has drawn, and would "
            "be among those that are; give another output, or move it away"
        )
    read = {image.resolve() for image in needed}
    for picture in ours:
        if picture.resolve() in read:
            raise PredictionError(
                f"{picture} is to be detected on, and would be replaced; give another output"
            )
    return [*left, *ours]


def _is_ours(picture: Path) -> bool:
    try:
        with Image.open(picture) as opened:
            return bool(opened.getexif().get(_SOFTWARE) == _MARK)
    except (OSError, ValueError, SyntaxError):  # of what is no picture
        return False


def _refusal(place: Path) -> str:
    return (
        f"{place} is there already, from an earlier run or from somebody; give another output, or "
        "--overwrite (overwrite=True) to replace it"
    )
