"""Numbers and text of files that anybody may have written."""

from __future__ import annotations

import math
import re
from pathlib import Path

from ..build import DatasetError

_DIGITS = re.compile(r"[+-]?[0-9]{1,30}")


def number(value: object) -> float | None:
    """A finite number, also one that is written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def whole(value: object) -> int | None:
    """A whole number that 64 bits hold, also one written as 3.0 or as text; None otherwise."""
    if isinstance(value, int) and not isinstance(value, bool):
        result = value
    elif isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        result = int(value)  # a float has 53 bits
    else:
        real = number(value)
        if real is None or not real.is_integer():
            return None
        if isinstance(value, str) and abs(real) > 2**53:  # other texts would be the same number
            return None
        result = int(real)
    return result if -(2**63) <= result < 2**63 else None


def flag(value: object) -> bool:
    """Whether a field such as ``iscrowd`` is set: true, or a number other than 0."""
    return value is True or bool(number(value))


def read_text(path: Path, limit: int) -> str:
    r"""The text of a UTF-8 file, with ``\n`` at the ends of lines, without a byte order mark.

    Args:
        path: the file.
        limit: bytes; what is larger is not what it is taken for.

    Raises:
        DatasetError: it cannot be read, is no UTF-8 or too large.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise DatasetError(f"{path} is not a file; expected one with text")
        if size > limit:
            raise DatasetError(f"{path} has {size} bytes; expected at most {limit} of such a file")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error


def beginning(path: Path, count: int) -> bytes:
    """The first bytes of a file; none of what cannot be read, or is none, as a pipe that waits."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""


def read_lines(path: Path, limit: int) -> list[tuple[int, str]]:
    """(number from 1, text) of the lines that are not blank, see :func:`read_text`."""
    lines = enumerate(read_text(path, limit).split("\n"), start=1)
    return [(i, line.strip()) for i, line in lines if line.strip()]
