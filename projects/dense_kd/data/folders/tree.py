"""One walk through a folder: which files are where."""

from __future__ import annotations

import functools
import os
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..build import DatasetError
from .images import SUFFIXES
from .records import PARTS

_PART_NAMES = {
    "train": {"train"}, "training": {"train"}, "trainval": {"train", "val"},
    "val": {"val"}, "valid": {"val"}, "validation": {"val"}, "dev": {"val"},
    "test": {"test"}, "testing": {"test"},
}  # fmt: skip
_SAY_NOTHING = frozenset(
    "annotation annotations coco image images img imgs instances label labels set split".split()
)
"""Words beside that of a part, in a name that is one of a part all the same."""
_OF_SYSTEMS = frozenset(
    "@eadir @recycle #recycle #snapshot $recycle.bin lost+found".split()
    + ["system volume information"]
)
"""Folders that disks and servers make for thumbnails, what was deleted and older states."""
_MAX_FILES = 5_000_000
_OF_DISTILL = "distill.json"


def part_of(name: str) -> str | None:
    """The part that a name of a file or folder says: "train" of "instances_train2017"."""
    return _first(_said(name)[0])


def part_of_path(path: Path, root: Path) -> str | None:
    """The part that the names of folders say; None if none does.

    The outermost name counts. Those of nothing but a part, as ``train`` or ``val_images``, go
    before others, as ``test_rig``. A name that says two parts, as ``trainval``, leaves it to those
    further in which of these it is.
    """
    return _first(_Said(path, root).parts)


def contradicting(path: Path, root: Path, *, others: bool = False) -> list[str]:
    """Two names of folders, the outer one first, that say different parts; [] if none do.

    Args:
        path, root: see :func:`part_of_path`.
        others: look, below a name of nothing but a part, at names with other words, too.
    """
    return _Said(path, root).contradiction(others)


class _Said:
    """What the names of the folders of a path say of its part."""

    def __init__(self, path: Path, root: Path):
        names = path.relative_to(root).parts if path != root else ()
        every = [(name, *_said(name)) for name in names]
        every = [each for each in every if each[1]]
        first = next((i for i, (_, _, alone) in enumerate(every) if alone), 0)
        self._every = every[first:]
        self._deciding = [each for each in every if each[2]] or every
        self.parts: frozenset[str] = frozenset()
        for _, parts, _ in self._deciding:
            self.parts = (self.parts & parts) or self.parts or parts

    def contradiction(self, others: bool) -> list[str]:
        looked_at = self._every if others else self._deciding
        for index, (name, parts, _) in enumerate(looked_at):
            for outer, outer_parts, _ in looked_at[:index]:
                if not parts & outer_parts:
                    return [outer, name]
        return []


def _said(name: str) -> tuple[frozenset[str], bool]:
    """The parts that a name says, and whether it says nothing else."""
    words = "".join(c if c.isalpha() else " " for c in name.lower()).split()
    parts = frozenset(part for word in words for part in _PART_NAMES.get(word, ()))
    return parts, all(word in _PART_NAMES or word in _SAY_NOTHING for word in words)


def _first(parts: frozenset[str]) -> str | None:
    return next((part for part in PARTS if part in parts), None)


def is_of_system(name: str) -> bool:
    """Whether a folder is hidden or made by a system: images in it are nobody's data."""
    name = name.lower()
    return name.startswith((".", "__macosx")) or name in _OF_SYSTEMS


def normalized(name: str) -> str:
    """A file name for comparison: systems write the same accent in several ways."""
    return unicodedata.normalize("NFC", name)


@dataclass
class Folder:
    """The files of one folder, by their suffix in lower case."""

    path: Path
    files: dict[str, list[str]]

    def named(self, *suffixes: str) -> list[str]:
        """Names of the files with one of these suffixes, sorted."""
        return sorted(name for suffix in suffixes for name in self.files.get(suffix, ()))

    @functools.cached_property
    def images(self) -> list[str]:
        """Names of the files that are called as images are, sorted."""
        return self.named(*SUFFIXES)


class Tree:
    """A folder with all that is below it, without hidden files and folders and those of systems.

    Nor is there what `dense-kd distill` has written: its annotations are no part of the data.
    ``left_out`` has these folders.
    """

    def __init__(self, root: Path):
        """
        Args:
            root: the folder. Links to folders are followed, each folder once.

        Raises:
            DatasetError: there is far more than a dataset in it, or a folder that cannot be read.
        """
        self.root = root
        self.folders: dict[Path, Folder] = {}
        self.left_out: list[Path] = []
        seen, count = {os.path.realpath(root)}, 0
        for place, names, files in os.walk(root, onerror=_refuse, followlinks=True):
            if _OF_DISTILL in files and Path(place) != root:
                self.left_out.append(Path(place))
                names.clear()
                continue
            kept = []
            for name in sorted(names):
                real = os.path.realpath(os.path.join(place, name))
                if not is_of_system(name) and real not in seen:
                    seen.add(real)
                    kept.append(name)
            names[:] = kept
            by_suffix: dict[str, list[str]] = defaultdict(list)
            for file in files:
                if not file.startswith("."):
                    by_suffix[os.path.splitext(file)[1].lower()].append(file)
            self.folders[Path(place)] = Folder(Path(place), dict(by_suffix))
            count += len(files) + len(names)
            if count > _MAX_FILES:
                raise DatasetError(
                    f"{root} holds more than {_MAX_FILES} files; expected the folder of one dataset"
                )

    def with_files(self, *suffixes: str) -> list[Folder]:
        """The folders that hold files with one of these suffixes, outermost first."""
        found = [folder for folder in self.folders.values() if folder.named(*suffixes)]
        return sorted(found, key=lambda folder: (len(folder.path.parts), folder.path))

    def found(self) -> str:
        """What there is, for messages: "images/ (40 .jpg), labels/ (38 .txt)"."""
        lines = []
        for folder in sorted(self.folders.values(), key=lambda folder: _depth(folder.path)):
            counts = Counter({suffix: len(names) for suffix, names in folder.files.items()})
            if counts:
                listed = ", ".join(
                    f"{n} {suffix or 'without suffix'}" for suffix, n in counts.most_common(4)
                )
                name = folder.path.relative_to(self.root).as_posix()
                lines.append(f"{'' if name == '.' else name}/ ({listed})")
        more = f" and {len(lines) - 8} more folders" if len(lines) > 8 else ""
        return ", ".join(lines[:8]) + more if lines else "nothing"


def _refuse(error: OSError) -> NoReturn:
    raise DatasetError(
        f"the folder {error.filename} cannot be read ({error.strerror}), so what it holds would be "
        "missing; make it readable, or give the dataset's own folder"
    ) from error


def stem(name: str) -> str:
    """The normalized name without its suffix."""
    return normalized(os.path.splitext(name)[0])


def _depth(path: Path) -> tuple[int, Path]:
    return len(path.parts), path
