"""Fetches BCCD from its repository, or takes a copy of it, and checks every file."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from ..checkpoint.places import check_folder
from .bccd import JSON_FOLDER, SPLITS, default_bccd_root
from .build import DatasetError
from .folders import read_dataset, write_annotations

logger = logging.getLogger(__name__)

REPOSITORY = "https://github.com/Shenggan/BCCD_Dataset"
COMMIT = "d272fb14cdff6e473fafeeeba32aba5f560e9e43"
ARCHIVE = f"{REPOSITORY}/archive/{COMMIT}.tar.gz"
FOLDER = "BCCD"
"""The folder of the repository that holds the dataset."""

DIGEST = "65bef9894ba5818e0ad3dc8378d1f172bf821509e42044de7b0f1e8a13991bd8"
"""What :func:`digest_of` gives for its files at :data:`COMMIT`."""

NUM_FILES = 732

_FILES = re.compile(r"Annotations/[^/]+\.xml|ImageSets/Main/[^/]+\.txt|JPEGImages/[^/]+\.jpg")
_LICENCE = "LICENSE"
_MAX_BYTES = 1 << 22
"""Of one file; the largest has some 40 kB."""


def install_bccd(
    source: str | os.PathLike[str] | None = None, root: str | os.PathLike[str] | None = None
) -> Path:
    """Put BCCD, checked, where its configs look for it; what is there already is checked as well.

    The folder appears as a whole or not at all. Beside the dataset's own files (in the layout of
    Pascal VOC) it has COCO's JSON of each part, without the two boxes that have no area.

    Args:
        source: the folder ``BCCD`` of the repository, or a copy of the repository; None fetches it.
        root: where to; None is :func:`~dense_kd.data.bccd.default_bccd_root`.

    Returns:
        the folder.

    Raises:
        DatasetError: it cannot be fetched, or what was fetched, given or is there is not BCCD.
        SaveError: nothing can be written beside the folder.
    """
    target = Path(default_bccd_root() if root is None else root)
    if target.exists():
        _check(_files_in(target), f"{target} is there already and", "move it away, or give another "
               "folder of datasets by DETECTRON2_DATASETS")  # fmt: skip
        if not all((target / JSON_FOLDER / f"{split}.json").is_file() for split in SPLITS):
            write_annotations(read_dataset(target, layout="voc"), target / JSON_FOLDER)
        logger.info(f"BCCD is in {target}, as it should be")
        return target
    check_folder(target.parent)
    files = _fetched() if source is None else _given(Path(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bccd-", dir=target.parent) as folder:
        written = Path(folder) / target.name
        for name, content in files.items():
            (written / name).parent.mkdir(parents=True, exist_ok=True)
            (written / name).write_bytes(content)
        dataset = read_dataset(written, layout="voc")
        write_annotations(dataset, written / JSON_FOLDER)
        try:
            written.rename(target)
        except OSError:
            if not target.exists():  # otherwise another process was faster
                raise
    logger.info(f"BCCD is in {target} now: {len(files) - 1} files; {dataset.problems.summary()}")
    return target


def digest_of(files: Mapping[str, bytes]) -> str:
    """A SHA-256 of names and contents.

    Without the text of the ``path`` elements of XML files: they name folders of those who drew the
    boxes, and copies of the dataset go without.

    Args:
        files: {path in the folder of the dataset, with slashes: content}.
    """
    sha = hashlib.sha256()
    for name in sorted(filter(_FILES.fullmatch, files)):
        content = files[name]
        if name.endswith(".xml"):
            content = re.sub(rb"<path>[^<]*</path>", b"", content)
        sha.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
    return sha.hexdigest()


def _fetched() -> dict[str, bytes]:
    advice = (
        f"where there is no network, copy the folder {FOLDER} of {REPOSITORY} at commit "
        f"{COMMIT[:7]} and give it as `dense-kd data bccd --from {FOLDER}`"
    )
    with tempfile.TemporaryDirectory() as folder:
        archive = os.path.join(folder, "bccd.tar.gz")
        try:
            torch.hub.download_url_to_file(ARCHIVE, archive)
        except Exception as error:  # what the transport raises
            raise DatasetError(
                f"BCCD could not be fetched from {ARCHIVE}: {type(error).__name__}: {error}; "
                f"{advice}"
            ) from error
        try:
            files = _unpacked(archive)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DatasetError(
                f"what came from {ARCHIVE} is damaged ({type(error).__name__}: {error}); try again"
            ) from error
    _check(files, f"what came from {ARCHIVE}", "try again, or " + advice)
    return files


def _unpacked(archive: str) -> dict[str, bytes]:
    """The files of the dataset in an archive of the repository; no path of it is written to."""
    files = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.partition("/")[2].removeprefix(f"{FOLDER}/")
            if member.isfile() and member.size <= _MAX_BYTES and _is_wanted(name):
                content = tar.extractfile(member)
                assert content is not None  # of a file
                files[name] = content.read()
    return files


def _given(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise DatasetError(
            f"{folder} does not exist or is no folder; expected the folder {FOLDER} of {REPOSITORY}"
        )
    inside = folder / FOLDER
    files = _files_in(inside if inside.is_dir() else folder)
    if inside.is_dir() and (folder / _LICENCE).is_file():
        files[_LICENCE] = (folder / _LICENCE).read_bytes()
    _check(files, f"{folder}", f"give the folder {FOLDER} of {REPOSITORY} at commit {COMMIT[:7]}")
    return files


def _files_in(folder: Path) -> dict[str, bytes]:
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        name: path.read_bytes()
        for name, path in paths.items()
        if _is_wanted(name) and path.is_file() and path.stat().st_size <= _MAX_BYTES
    }


def _is_wanted(name: str) -> bool:
    return name == _LICENCE or _FILES.fullmatch(name) is not None


def _check(files: Mapping[str, bytes], what: str, advice: str) -> None:
    count = sum(_FILES.fullmatch(name) is not None for name in files)
    found = digest_of(files)
    if found != DIGEST:
        raise DatasetError(
            f"{what} is not BCCD: expected {NUM_FILES} files in Annotations, ImageSets/Main and "
            f"JPEGImages with the digest {DIGEST[:16]}, found {count} with {found[:16]}; {advice}"
        )
