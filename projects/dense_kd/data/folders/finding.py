"""Finds the images that annotations name, wherever below a folder they lie."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from ..build import DatasetError
from .images import SUFFIXES
from .tree import Tree, normalized, part_of_path

_USUAL = ("images", "image", "imgs", "img", "jpegimages", "data")
_SAMPLE = 50
_ENOUGH = (
    0.8  # of what the best folder holds: a folder of masks may miss no name, that of images one
)


class ImageFinder:
    """Where the images of one annotation file, or folder of them, are.

    The folder that holds most of them is looked for once: folders named after the part, the
    folder of the annotations, and those called "images" or the like come first. An image that is
    not in it is taken from elsewhere if its name is unique.
    """

    def __init__(
        self,
        tree: Tree,
        names: list[str],
        *,
        near: Path,
        part: str,
        key: Callable[[str], str] = normalized,
    ):
        """
        Args:
            tree: what is searched.
            names: of the images, as annotations give them.
            near: the folder of the annotations.
            part: "train", "val" or "test".
            key: what of the names of files is compared with ``names``.

        Raises:
            DatasetError: several folders hold them, and nothing says which is meant.
        """
        self._key = key
        self._files: dict[str, list[Path]] = defaultdict(list)
        self._held: dict[Path, dict[str, list[Path]]] = {}
        for folder in tree.with_files(*SUFFIXES):
            held: dict[str, list[Path]] = defaultdict(list)
            for name in folder.images:
                held[key(name)].append(folder.path / name)
            self._held[folder.path] = dict(held)
            for short, paths in held.items():
                self._files[short] += paths
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
        if self._asked[base] == 1 and (self._key is not normalized or len(elsewhere) == 1):
            return elsewhere
        return []

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


def _base(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]
