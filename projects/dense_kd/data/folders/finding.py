"""Finds the images that annotations name, wherever below a folder they lie."""

from __future__ import annotations

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from pathlib import Path

from ..build import DatasetError
from .images import SUFFIXES
from .tree import Tree, normalized, part_of_path

ELSEWHERE = "found in another folder"
"""Why an image is repaired that lies neither with the others nor where its name says."""
_USUAL = ("images", "image", "imgs", "img", "jpegimages", "data")
_SAMPLE = 50
_ENOUGH = (
    0.8  # of what the best folder holds: a folder of masks may miss no name, that of images one
)


class ImageFinder:
    """Where the images of one annotation file, or folder of them, are.

    The folder that holds most of them is looked for once: folders named after the part, the
    folder of the annotations, and those called "images" or the like come first. Folders that are
    named after another part, or are nearer to other annotations, are taken only if no other folder
    holds any.

    An image that is not in it is taken from elsewhere if its path ends with all of its name; or if
    its name is unique, it lies in no folder of others, and in those folders of its name that there
    are.
    """

    def __init__(
        self,
        tree: Tree,
        names: list[str],
        *,
        near: Path,
        part: str,
        parts: Collection[str] = (),
        others: Collection[Path] = (),
        key: Callable[[str], str] = normalized,
    ):
        """
        Args:
            tree: what is searched.
            names: of the images, as annotations give them.
            near: the folder of the annotations.
            part: "train", "val" or "test".
            parts: all that the dataset has.
            others: folders of the other annotations of the dataset.
            key: what of the names of files is compared with ``names``.

        Raises:
            DatasetError: several folders hold them, and nothing says which is meant.
        """
        self._key = key
        self._root, self._near = tree.root, near
        self._other_parts = {*parts} - {part}
        self._other_annotations = {*others}
        self._files: dict[str, list[Path]] = defaultdict(list)
        self._held: dict[Path, dict[str, list[Path]]] = {}
        for folder in tree.with_files(*SUFFIXES):
            held: dict[str, list[Path]] = defaultdict(list)
            for name in folder.images:
                held[key(name)].append(folder.path / name)
            self._held[folder.path] = dict(held)
            for short, paths in held.items():
                self._files[short] += paths
        self._names = {name for path in self._held for name in self._below(path)}
        self._asked = Counter(normalized(_base(name)) for name in names)
        self.folder = self._best(tree, names, near, part) or near

    def find(self, name: str) -> list[Path]:
        """The files that a name may mean: mostly one, none if there is none."""
        name = name.replace("\\", "/") if "\\" in name else name
        direct = self.folder / name
        if self._key is normalized and os.path.isfile(direct):
            return [direct]
        held = self._held.get(self.folder, {}).get(normalized(name))
        if held:
            return held
        base = normalized(_base(name))
        elsewhere = self._files.get(base, [])
        exact = [path for path in elsewhere if self._is_named(path, name)]
        if len(exact) == 1:
            return exact
        if self._asked[base] != 1 or not elsewhere:
            return []
        first = elsewhere[0].parent
        unique = len(elsewhere) == 1 if self._key is normalized else (
            all(path.parent == first for path in elsewhere)
        )  # fmt: skip
        own = not self._is_anothers(first) or self._is_anothers(self.folder)
        wanted = self._names.intersection(map(normalized, name.split("/")[:-1]))
        return elsewhere if unique and own and wanted <= {*self._below(first)} else []

    def is_elsewhere(self, path: Path, name: str) -> bool:
        """Whether a file that was found is neither in the folder of the others nor where its name
        says."""
        name = name.replace("\\", "/")
        return path.parent != (self.folder / name).parent and (
            path.parent != self.folder and not self._is_named(path, name)
        )

    def images(self) -> list[Path]:
        """All images of the folder that was found."""
        return [path for paths in self._held.get(self.folder, {}).values() for path in paths]

    def _best(self, tree: Tree, names: list[str], near: Path, part: str) -> Path | None:
        sample = [n.replace("\\", "/") for n in names[:: max(1, len(names) // _SAMPLE)]]
        hits = {
            path: sum(
                normalized(name) in self._held.get(path, ())
                or ("/" in name and os.path.isfile(path / name))
                for name in sample
            )
            for path in tree.folders
        }
        hits = {path: n for path, n in hits.items() if n and not self._is_anothers(path)} or hits
        most = max(hits.values(), default=0)
        if not most:
            return None
        ranks = {}
        for path, count in hits.items():
            if count >= _ENOUGH * most:
                own = part_of_path(path, tree.root)
                usual = path.name.lower() in _USUAL
                nearness = -len(path.parts)
                ranks[path] = (own == part, own is None, path == near, usual, count, nearness)
        first = max(ranks.values())
        best = sorted(path for path, rank in ranks.items() if rank == first)
        if len(best) > 1:
            raise DatasetError(
                f"the images that {near} describes are in several folders under the same names, "
                f"{best[0]} and {best[1]}; say which are meant, in a YAML file with "
                "train: {images: FOLDER, annotations: ...}"
            )
        return best[0]

    def _is_anothers(self, folder: Path) -> bool:
        """Whether a folder is named after another part, or nearer to other annotations."""
        own = _shared(folder, self._near)
        return part_of_path(folder, self._root) in self._other_parts or any(
            _shared(folder, other) > own for other in self._other_annotations
        )

    def _is_named(self, path: Path, name: str) -> bool:
        """Whether a path ends with all of a name that has a folder."""
        return "/" in name and f"/{normalized(path.as_posix())}".endswith(
            f"/{normalized(name).removeprefix('./')}"
        )

    def _below(self, folder: Path) -> list[str]:
        """The names of a folder and those above it, below the folder that is searched."""
        return [normalized(name) for name in folder.relative_to(self._root).parts]


def _shared(path: Path, other: Path) -> int:
    """How many folders two paths have in common, from the outermost on."""
    pairs = zip(path.parts, other.parts)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _base(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]
