"""Headers of image files: their size as a detector sees them, and whether they are whole."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

SUFFIXES = frozenset(
    ".bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
"""Of files that are taken for images, in lower case."""

_ORIENTATION = next(key for key, name in ExifTags.TAGS.items() if name == "Orientation")
_SWAPPED = (5, 6, 7, 8)
"""Orientations that exchange width and height."""
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes of more than 8 bits a channel."""

_TAIL = 4096
_LATE_PNG_TEXT = (b"eXIf", b"iTXt", b"zTXt", b"tEXt")


class UnreadableImageError(ValueError):
    """A file that is no image, or not all of one."""


@dataclass(frozen=True)
class Header:
    """What is known of an image file without its pixels."""

    stored: tuple[int, int]
    """(width, height) of the pixels in the file."""
    orientation: int
    """1 to 8, as EXIF numbers them; what detectron2's ``read_image`` turns the image by."""
    fingerprint: tuple[int, int]
    """Number of bytes, and checksum of the last ones. Copies of a file have the same."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image that a detector gets, turned by its orientation."""
        width, height = self.stored
        return (height, width) if self.orientation in _SWAPPED else (width, height)


def read_header(path: Path) -> Header:
    """Read the header of an image file, and of its end as much as shows that nothing is cut off.

    The pixels are decoded only where the end does not show it, and of more than 8 bits.

    Args:
        path: the file.

    Raises:
        UnreadableImageError: the file is missing, no image, truncated, or has pixels that
            do not fit into 8 bits.
    """
    if not os.path.isfile(path):  # also: never open a pipe, which would wait for a writer
        raise UnreadableImageError("is not a file" if os.path.exists(path) else "does not exist")
    try:
        size = path.stat().st_size
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of images that are merely large
            file.seek(max(0, size - _TAIL))
            tail = file.read()
            file.seek(0)
            start = file.read(12)
            file.seek(0)
            with Image.open(file) as image:
                orientation = _orientation(image, tail)
                wrong = turned_twice(image) or lost_depth(image)
                if wrong:
                    raise UnreadableImageError(wrong)
                if not _ends(image.format, start, tail, size):
                    image.load()
                return Header(image.size, orientation, (size, zlib.crc32(tail)))
    except UnidentifiedImageError:
        raise UnreadableImageError("is empty" if not size else "is no image") from None
    # Decoders raise what they come across first: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise UnreadableImageError(f"{error}" or type(error).__name__) from error


def lost_depth(image: Image.Image) -> str:
    """What is wrong with an image whose pixels do not fit into 8 bits a channel, "" if they do.

    Detectron2 makes 8 bits of every image: what is above 255 becomes 255, fractions become 0.

    Args:
        image: opened; its pixels are read if its mode is one of more than 8 bits.
    """
    if image.mode not in _DEEP_MODES:
        return ""
    low, high = image.getextrema()
    if not isinstance(low, tuple) and not isinstance(high, tuple) and 0 <= low and high <= 255:
        if image.mode != "F" or high > 1 or low == high == 0:
            return ""
    return (
        f"has pixels from {low} to {high} (Pillow's mode {image.mode}), which would be cut off to "
        "0 to 255; save it with 8 bits a channel"
    )


def turned_twice(image: Image.Image) -> str:
    """What is wrong with an image that Pillow and detectron2 would both turn, "" if they do not.

    Args:
        image: opened, its pixels not read.
    """
    orientation = _orientation(image, b"") if image.format == "TIFF" else 1
    if orientation == 1:
        return ""
    return (
        f"is a TIFF with the orientation {orientation}, which Pillow and detectron2 would both "
        "apply; save it turned, or as a PNG"
    )


def _orientation(image: Image.Image, tail: bytes) -> int:
    try:
        # For PNG, PIL decodes all pixels to see what follows them; the end of the file shows it.
        all_read = image.format == "PNG" and not any(chunk in tail for chunk in _LATE_PNG_TEXT)
        exif = Image.Image.getexif(image) if all_read else image.getexif()
        found = exif.get(_ORIENTATION)
    except Exception:  # as detectron2 does: damaged EXIF data is none
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _ends(kind: str | None, start: bytes, tail: bytes, size: int) -> bool:
    """Whether the end of the file shows that all of it is there."""
    if kind in ("JPEG", "MPO"):
        return b"\xff\xd9" in tail[-64:]  # the marker that ends it; no coded pixels look like it
    if kind == "PNG":
        return b"IEND" in tail[-16:]
    if kind == "WEBP":
        return size >= struct.unpack("<I", start[4:8])[0] + 8
    return False
