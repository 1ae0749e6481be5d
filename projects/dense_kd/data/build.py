"""Training datasets that say what is wrong with them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.structures import BoxMode

from ..arguments import is_integer
from ..errors import DenseKDError


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
                raise DatasetError(
                    f"the training dataset {name!r} ({_file_of(name)}) cannot be read: "
                    f"{type(error).__name__}: {error}"
                ) from error
            loaded = []
        _check_records(name, loaded)
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


def _check_records(name: str, images: Sequence[Mapping[str, Any]]) -> None:
    """What is no box or size would end a run in the middle, or teach it NaN."""
    for image in images:
        wrong = _wrong_size(image) or next(filter(None, map(_wrong_box, _annotations(image))), "")
        if wrong:
            raise DatasetError(
                f"the training dataset {name!r} ({_file_of(name)}) has {image.get('file_name')} "
                f"with {wrong}"
            )


def _annotations(image: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return image.get("annotations", ())


def _wrong_size(image: Mapping[str, Any]) -> str:
    for key in ("height", "width"):
        value = image.get(key, 1)  # may be absent, for detectron2's mapper to fill in
        if not (is_integer(value) and value > 0):
            return f"{key}={str(value)[:99]}: expected a number of pixels"
    return ""


def _wrong_box(annotation: Mapping[str, Any]) -> str:
    box, crowd = annotation.get("bbox"), annotation.get("iscrowd", 0)
    count = 5 if annotation.get("bbox_mode") == BoxMode.XYWHA_ABS else 4
    numbers = box if isinstance(box, Sequence) else getattr(box, "tolist", tuple)()
    if len(numbers) != count or not all(map(_is_finite, numbers)):
        return f"an annotation of bbox={str(box)[:99]}: expected {count} numbers"
    return "" if crowd in (0, 1) else f"an annotation of iscrowd={str(crowd)[:99]}: expected 0 or 1"


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and -sys.float_info.max <= value <= sys.float_info.max
