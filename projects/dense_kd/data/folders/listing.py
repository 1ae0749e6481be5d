"""Text files that name the images of a part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from .problems import Problems
from .tree import normalized, stem
from .values import read_lines

_MAX_LIST = 1024 * 2**20


def listed(listing: Path, names: Iterable[str], problems: Problems) -> set[str]:
    """Those of the images that a list names.

    A line names an image if one is the end of the other: ``cam1/001.png`` in a list is
    ``images/cam1/001.png`` and not ``images/cam2/001.png``, ``001.png`` is both. It may lack the
    suffix, or have another one where no image has its own.

    Args:
        listing: the file, a line for each.
        names: of all images, with the folders that tell them apart.
        problems: where lines that name none are recorded.

    Raises:
        DatasetError: the file cannot be read.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in names:
        base = base_of(name)
        by_name[base].append(name)
        by_stem[stem(base)].append(name)
    found: set[str] = set()
    for line, text in read_lines(listing, _MAX_LIST):
        base = base_of(text)
        for candidates in (by_name.get(base), by_stem.get(base), by_stem.get(stem(base))):
            named = [name for name in candidates or () if in_one_folder(name, text)]
            found.update(named)
            if named:
                break
        else:
            problems.add(
                "dropped", "image", "listed, but no such image", listing, f"line {line}", text
            )
    return found


def in_one_folder(name: str, other: str) -> bool:
    """Whether the folders of one are the end of those of the other."""
    first, second = ([*reversed(folders_of(text))] for text in (name, other))
    return all(a == b for a, b in zip(first, second))


def base_of(name: str) -> str:
    """The name without its folders, for comparison."""
    return normalized(name.replace("\\", "/").rsplit("/", 1)[-1])


def folders_of(name: str) -> list[str]:
    """The folders that a name has, from the outermost on, for comparison."""
    folders = normalized(name.replace("\\", "/")).split("/")[:-1]
    return [folder for folder in folders if folder not in ("", ".", "..")]
