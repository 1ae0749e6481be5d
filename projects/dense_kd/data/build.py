"""Training datasets that say what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.build import filter_images_with_only_crowd_annotations

from ..errors import DenseKDError
from .records import catalog_problem, record_problem


class DatasetError(DenseKDError, ValueError):
    """A dataset that a detector cannot be trained on."""


def dataset_root(name: str) -> str:
    """Where a dataset is: the folder of that name in $DETECTRON2_DATASETS, or in `datasets`."""
    return os.path.join(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")), name)


def objects_of(image: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The annotations of an image that are no crowds or regions to ignore.

    Args:
        image: in detectron2's standard dataset format, with or without annotations.
    """
    return [each for each in image.get("annotations", ()) if not each.get("iscrowd", 0)]


def detection_dataset(
    names: str | Sequence[str], *, filter_empty: bool = True
) -> list[dict[str, Any]]:
    """The images of registered datasets, for training.

    Args:
        names: one or more names of detectron2's DatasetCatalog.
        filter_empty: leave out images without objects, as the COCO recipes do.

    Returns:
        dicts in detectron2's standard dataset format.

    Raises:
        DatasetError: a dataset cannot be read, has boxes that are none, or no annotation to learn
            from.
    """
    names = [names] if isinstance(names, str) else list(names)
    images: list[dict[str, Any]] = []
    for name in names:
        try:
            loaded = get_detection_dataset_dicts(name, filter_empty=False)
        except DenseKDError:
            raise
        except Exception as error:  # of whoever has registered it
            if not (isinstance(error, AssertionError) and "is empty" in str(error)):
                why = catalog_problem([name]) or f"{type(error).__name__}: {error}"
                raise DatasetError(
                    f"the training dataset {name!r} ({_file_of(name)}) cannot be read: {why}"
                ) from error
            loaded = []
        wrong = record_problem(loaded)
        if wrong:
            raise DatasetError(f"the training dataset {name!r} ({_file_of(name)}) {wrong}")
        if not any(map(objects_of, loaded)):
            raise DatasetError(
                f"the training dataset {name!r} ({_file_of(name)}) has {len(loaded)} images and no "
                "annotation of an object; expected at least one. Check the file's 'annotations', "
                "or train on another dataset (dataloader.train.dataset.names)"
            )
        images += filter_images_with_only_crowd_annotations(loaded) if filter_empty else loaded
    return images


def _file_of(name: str) -> str:
    return getattr(MetadataCatalog.get(name), "json_file", "no json file known")
