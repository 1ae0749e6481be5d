"""What is wrong with images in detectron2's standard dataset format, before they are needed."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode

from ..arguments import is_finite_number, is_integer, is_number

_MODES = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS)
_FEW_FILES = 100


def record_problem(images: Any, training: bool = True) -> str:
    """What would end a run in the middle, or teach it NaN; "" if nothing does.

    Args:
        images: what the function of a dataset gives, a list of dicts.
        training: whether annotations are learnt from, so that detectron2's mapper needs a list of
            them, if an empty one, in each image if in any.

    Returns:
        of the first image with something wrong, the end of a sentence that begins with the dataset.
    """
    if not isinstance(images, Sequence) or isinstance(images, str):
        return f"gives {_shown(images)}; expected a list of dicts, one for each image"
    labelled = training and any(
        isinstance(image, Mapping) and "annotations" in image for image in images
    )
    for index, image in enumerate(images):
        if not isinstance(image, Mapping):
            return f"has {_shown(image)} for image {index}; expected a dict"
        file = image.get("file_name")
        if not isinstance(file, (str, os.PathLike)):
            return f"has image {index} with file_name={_shown(file)}: expected a path"
        if labelled and "annotations" not in image:
            wrong = "no annotations, where others have some: expected [] if it has no objects"
        else:
            wrong = _wrong_size(image) or next(filter(None, _wrong_objects(image)), "")
        if wrong:
            return f"has {file} with {wrong}"
    return ""


def catalog_problem(names: Iterable[str]) -> str:
    """Why registered datasets cannot be read: the first with a :func:`record_problem`, with its
    name; "" if none has one, or its function fails."""
    for name in names:
        try:
            found = record_problem(DatasetCatalog.get(name), training=False)
        except Exception:  # of whoever has registered it; it is the error that is asked about
            continue
        if found:
            return f"{name} {found}"
    return ""


def missing_files(images: Sequence[Any]) -> list[str]:
    """The files of images that do not exist; addresses as ``s3://`` are not looked at.

    Folders are listed, which asks a file system in a network less often than a look at each file.
    """
    folders: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for image in images:
        file = image.get("file_name") if isinstance(image, Mapping) else None
        if isinstance(file, (str, os.PathLike)) and "://" not in str(file):
            folder, name = os.path.split(str(file))
            folders[folder][name] = str(file)
    missing = []
    for folder, files in folders.items():
        known = _listed(folder) if len(files) > _FEW_FILES else set()
        unknown = (file for name, file in files.items() if name not in known)
        missing += [file for file in unknown if not os.path.isfile(file)]
    return missing


def repeated(values: Iterable[Any]) -> list[Any]:
    """Those that are there more than once, each once and in their order."""
    return [value for value, count in collections.Counter(values).items() if count > 1]


def repeated_ids(images: Sequence[Any]) -> list[Any]:
    """The values of ``image_id`` that several images have; None where an image has none."""
    counts = collections.Counter(
        image.get("image_id") for image in images if isinstance(image, Mapping)
    )
    return [key for key, count in counts.items() if count > 1 or key is None]


def boxes_without_area(images: Sequence[Any]) -> list[str]:
    """The files of images, once for each of their objects that has no pixel in them.

    detectron2's mapper leaves such objects out in training; in an evaluation they can only be
    missed.

    Args:
        images: without a :func:`record_problem`; those that do not say their sizes are not judged.
    """
    return [
        str(image.get("file_name"))
        for image in images
        if "height" in image and "width" in image
        for each in image.get("annotations", ())
        if not each.get("iscrowd", 0) and not _has_area(each, image["height"], image["width"])
    ]


def _has_area(annotation: Mapping[str, Any], height: int, width: int) -> bool:
    if annotation["bbox_mode"] == BoxMode.XYWHA_ABS:
        return True
    x1, y1, x2, y2 = annotation["bbox"]
    if annotation["bbox_mode"] == BoxMode.XYWH_ABS:
        x2, y2 = x1 + x2, y1 + y2
    return bool(min(x2, width) > max(x1, 0) and min(y2, height) > max(y1, 0))


def _listed(folder: str) -> set[str]:
    try:
        with os.scandir(folder or os.curdir) as entries:
            return {entry.name for entry in entries if not entry.is_dir()}
    except OSError:
        return set()


def _wrong_size(image: Mapping[str, Any]) -> str:
    for key in ("height", "width"):
        value = image.get(key, 1)  # may be absent, for detectron2's mapper to fill in
        if not (is_integer(value) and value > 0):
            return f"{key}={str(value)[:99]}: expected a number of pixels"
    return ""


def _wrong_objects(image: Mapping[str, Any]) -> Iterator[str]:
    annotations = image.get("annotations", ())
    if not isinstance(annotations, Sequence) or isinstance(annotations, str):
        yield f"annotations={_shown(annotations)}: expected a list of dicts, one for each object"
        return
    for each in annotations:
        if not isinstance(each, Mapping):
            yield f"{_shown(each)} for an annotation: expected a dict"
        else:
            yield _wrong_box(each) or _wrong_labels(each)


def _wrong_box(annotation: Mapping[str, Any]) -> str:
    box, mode = annotation.get("bbox"), annotation.get("bbox_mode")
    count = 5 if mode == BoxMode.XYWHA_ABS else 4
    listed = isinstance(box, Sequence)
    numbers: Any = box if listed else getattr(box, "tolist", tuple)()
    if len(numbers) != count or not all(map(is_finite_number, numbers)):
        return f"an annotation of bbox={str(box)[:99]}: expected {count} numbers"
    if mode not in _MODES:
        return (
            f"an annotation of bbox_mode={str(mode)[:99]}: expected BoxMode.XYXY_ABS (corners) or "
            "BoxMode.XYWH_ABS (corner, width and height), in pixels"
        )
    if not listed and mode != BoxMode.XYXY_ABS:  # of others detectron2 converts lists alone
        return f"an annotation of bbox={str(box)[:99]}, an array: expected a list, as bbox.tolist()"
    return ""


def _wrong_labels(annotation: Mapping[str, Any]) -> str:
    category, crowd = annotation.get("category_id"), annotation.get("iscrowd", 0)
    if not (is_number(category) and float(category).is_integer()):
        return f"an annotation of category_id={str(category)[:99]}: expected a whole number from 0"
    return "" if crowd in (0, 1) else f"an annotation of iscrowd={str(crowd)[:99]}: expected 0 or 1"


def _shown(value: Any) -> str:
    return f"{type(value).__name__} ({str(value)[:60]})" if value is not None else "None"
