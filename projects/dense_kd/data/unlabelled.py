"""Images without labels, and the loader that puts them into the batches of a training."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .build import DatasetError
from .folders.images import UnreadableImageError, read_header
from .folders.tree import Tree
from .loader import TrainLoader
from .visited import Mapper

logger = logging.getLogger(__name__)

UNLABELLED = "unlabelled"
"""The key that is True in what a model gets of an image without labels; it has no "instances"."""

_LABELS = ("annotations", "sem_seg_file_name", "pan_seg_file_name", "segments_info")


def unlabelled_images(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All images below a folder, as a dataset without annotations.

    They come in the order of their paths below it. Of each only the header is read; those that
    cannot be read are left out, and said.

    Args:
        folder: hidden files and folders in it are left out, as are those of systems.

    Returns:
        dicts with file_name, height, width and image_id, which counts from 1.

    Raises:
        DatasetError: there is no such folder, or no image in it that can be read.
    """
    root = Path(os.path.abspath(os.path.expanduser(folder)))
    if not root.is_dir():
        raise DatasetError(f"unlabelled images: {folder} is no folder; expected one with images")
    found = (place.path / name for place in Tree(root).folders.values() for name in place.images)
    images: list[dict[str, Any]] = []
    unreadable: list[str] = []
    for path in sorted(found, key=lambda path: path.relative_to(root).as_posix()):
        try:
            width, height = read_header(path).size
        except UnreadableImageError as error:
            unreadable.append(f"{path} {error}")
            continue
        images.append({"file_name": str(path), "height": height, "width": width,
                       "image_id": len(images) + 1})  # fmt: skip
    if unreadable:
        logger.warning(
            f"{len(unreadable)} of the images without labels are left out: "
            + "; ".join(unreadable[:3])
            + ("; ..." if len(unreadable) > 3 else "")
        )
    if not images:
        raise DatasetError(
            f"unlabelled images: {folder} has no image that can be read; expected files such as "
            ".jpg and .png"
        )
    return images


class UnlabelledLoader(TrainLoader):
    """A :class:`TrainLoader` of images whose labels nobody knows, or is to know.

    Its images have no "instances" and are marked, so that a :class:`dense_kd.Distiller` leaves them
    out of the detection losses; what its dataset has of annotations is not read. In a config it is
    ``dataloader.unlabelled``, with a batch size (images per iteration, beside those of
    ``dataloader.train``) and augmentations of its own.
    """

    def __init__(self, dataset: list[dict[str, Any]], *, mapper: Mapper, **options: Any):
        """
        Args:
            dataset: of :func:`unlabelled_images`, or any other; its annotations are dropped.
            mapper: see :class:`TrainLoader`, for images without annotations.
            options: further ones of :class:`TrainLoader`.

        Raises:
            ValueError, DatasetError: see there.
        """
        super().__init__(dataset, mapper=_WithoutLabels(mapper), **options)


class _WithoutLabels:
    """A mapper that sees no labels, and gives none."""

    def __init__(self, mapper: Mapper):
        if not callable(mapper):
            raise TypeError(f"mapper={mapper!r}: expected a DatasetMapper, or another function")
        self._mapper = mapper

    def __call__(self, record: dict[str, Any]) -> dict[str, Any] | None:
        mapped = self._mapper({key: record[key] for key in record if key not in _LABELS})
        if mapped is None:
            return None
        bare = {key: value for key, value in mapped.items() if key not in ("instances", *_LABELS)}
        return {**bare, UNLABELLED: True}


class WithUnlabelled:
    """Batches of two loaders, one after the other in each: labelled images come first.

    Their places in the data are one state: a resumed run goes on with both.
    """

    def __init__(self, labelled: Any, unlabelled: Any):
        """
        Args:
            labelled: of ``dataloader.train``, a :class:`TrainLoader`.
            unlabelled: of ``dataloader.unlabelled``, an :class:`UnlabelledLoader`.

        Raises:
            TypeError: they are not.
        """
        for name, value, kind in (
            ("dataloader.train", labelled, TrainLoader),
            ("dataloader.unlabelled", unlabelled, UnlabelledLoader),
        ):
            if not isinstance(value, kind):
                raise TypeError(
                    f"{name} is a {type(value).__name__}; beside images without labels, expected "
                    f"dense_kd.data.{kind.__name__}"
                )
        self.labelled: TrainLoader = labelled
        self.unlabelled: UnlabelledLoader = unlabelled

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for labelled, unlabelled in zip(self.labelled, self.unlabelled):
            yield [*labelled, *unlabelled]

    def state_dict(self) -> dict[str, Any]:
        """That of the labelled images, with that of the others in it."""
        return {**self.labelled.state_dict(), UNLABELLED: self.unlabelled.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Must come before the first batch is taken; of a run without unlabelled images, these
        begin anew."""
        own = {key: value for key, value in state.items() if key != UNLABELLED}
        self.labelled.load_state_dict(own)
        if UNLABELLED in state:
            self.unlabelled.load_state_dict(state[UNLABELLED])
        else:
            logger.warning(
                "The checkpoint is of a run without unlabelled images: their order begins anew"
            )
