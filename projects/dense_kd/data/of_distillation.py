"""The datasets of the runs of ``dense-kd distill``, known by the folder that it has written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..checkpoint.digests import file_digest
from ..json_files import read_json
from .registration import register_file

__all__ = ["RECORD", "place_of_part", "register_beside"]

RECORD = "distill.json"
"""In the folder of a distillation: what it was made with."""


def place_of_part(folder: Path, part: str) -> tuple[Path, str | None]:
    """The COCO file of a part of the data, and the folder of its images.

    Args:
        folder: of the distillation.
        part: "train", "val", "test" or "unlabelled".

    Returns:
        The file may be missing; the folder is None if the record does not tell it.
    """
    record = read_json(folder / RECORD)
    of_part = ("options", "unlabelled") if part == "unlabelled" else ("data", "data")
    entries = record.get(of_part[0])
    root = entries.get(of_part[1]) if isinstance(entries, dict) else None
    return folder / "data" / f"{part}.json", root if isinstance(root, str) else None


def register_beside(config: Path, names: Iterable[str]) -> None:
    """Register the datasets of a ``config.yaml``, which does not do so itself, as its run has them.

    Nothing is done for a file that is no run's of a distillation. Images may be missing: what needs
    them says so, and where they were.

    Args:
        config: the file.
        names: of datasets that it needs.

    Raises:
        DatasetError: a name stands for other data already, or annotations cannot be read.
    """
    folder = config.absolute().parent.parent
    if config.name != "config.yaml" or not (folder / RECORD).is_file():
        return
    for stem in dict.fromkeys(name.rpartition("_")[0] for name in names):
        for part in ("train", "val", "test", "unlabelled"):
            file, root = place_of_part(folder, part)
            name = f"{stem}_{part}"
            if stem and root is not None and file.is_file() and not _is_same(name, file, root):
                where = (
                    f"It is of the data of {folder}; if that has moved, `dense-kd distill` with "
                    "its new place, the same options and this --output notes it"
                )
                register_file(name, str(file), root, where=where)


def _is_same(name: str, file: Path, root: str) -> bool:
    """Whether the name stands for this data already, as that of another run of it."""
    if name not in DatasetCatalog:
        return False
    known = MetadataCatalog.get(name)
    path = known.get("json_file")
    return (
        known.get("image_root") == root
        and path is not None
        and Path(path).is_file()
        and file_digest(path) == file_digest(file)
    )
