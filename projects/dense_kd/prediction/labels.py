"""Detections written as annotations, and the score that makes a detection one."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from ..checkpoint import replace_atomically
from ..data.folders import OwnDataset
from ..data.folders.writing import annotations_of
from ..evaluation.score_threshold import ScoreThreshold, best_threshold
from .earlier import check_labels, incomplete, keeping
from .errors import ImageError, PredictionError
from .folder import find_images
from .images import ImageInput
from .predictor import Predictor

__all__ = ["Labelled", "calibrate", "label_files"]


@dataclass(frozen=True)
class Labelled:
    """What was written.

    Attributes:
        num_images: that were read.
        num_objects: in them.
        unreadable: {path of an image that could not be read: why}.
    """

    num_images: int
    num_objects: int
    unreadable: dict[str, str]


def label_files(
    predictor: Predictor,
    paths: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    batch_size: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Labelled:
    """Write the detections in images as a COCO file of annotations, each with its ``score``.

    A dataset of it can be registered (:func:`dense_kd.data.register_annotations`) and trained on.
    Category ids are those of the detector's dataset; names of files are relative to the folder, if
    one is given, else absolute. Images that cannot be read are left out. If it is interrupted, what
    was found until then is beside the file, in that of :func:`.earlier.incomplete`.

    Args:
        predictor: whose ``score_threshold`` says what is an object.
        paths: see :func:`.folder.find_images`.
        output: the file.
        overwrite: replace a file that is there.
        batch_size: see :meth:`.predictor.Predictor.predict`.
        progress: is told how many images are done, of how many.

    Raises:
        PredictionError: there is no image, or ``output`` is there already.
        SaveError: ``output`` cannot be written.
    """
    output = Path(output)
    check_labels(output, overwrite)
    found = find_images(paths)
    folder = Path(paths[0]) if len(paths) == 1 and Path(paths[0]).is_dir() else None
    unreadable: dict[str, str] = {}

    def note(image: ImageInput, error: ImageError) -> None:
        unreadable[str(image)] = str(error)

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []

    def write(file: Path) -> str:
        seen = len(images) + len(unreadable)
        whole = "" if seen == len(found) else f"; INCOMPLETE, of {seen} of {len(found)} images"
        score = predictor.score_threshold
        bound = "the detector's own bound" if score is None else f"{score:g}"
        content = {
            "info": {
                "description": f"detections, not labels of people; scores from {bound}{whole}"
            },
            "licenses": [],
            "categories": [
                {"id": key, "name": name}
                for key, name in zip(predictor.category_ids, predictor.class_names)
            ],
            "images": images,
            "annotations": annotations,
        }
        text = json.dumps(content).encode("ascii")
        replace_atomically(str(file), lambda stream: stream.write(text))
        return f"what was found in {len(images)} of {len(found)} images"

    predictions = predictor.predict(map(str, found), batch_size=batch_size, on_error=note)
    output.parent.mkdir(parents=True, exist_ok=True)
    with keeping(output, lambda file: write(file) if images else ""):
        for prediction in predictions:
            path, (height, width) = Path(str(prediction.file_name)), prediction.image.shape[:2]
            name = path.relative_to(folder).as_posix() if folder else str(path.absolute())
            entry = {"id": len(images) + 1, "file_name": name, "height": height, "width": width}
            images.append(entry)
            for each in prediction.to_coco(len(images)):
                area = each["bbox"][2] * each["bbox"][3]
                number = len(annotations) + 1
                annotations.append({**_kept(each), "id": number, "area": area, "iscrowd": 0})
            if progress is not None:
                progress(len(images) + len(unreadable), len(found))
    write(output)
    incomplete(output).unlink(missing_ok=True)
    return Labelled(len(images), len(annotations), unreadable)


def calibrate(
    predictor: Predictor,
    dataset: OwnDataset,
    *,
    iou: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> ScoreThreshold:
    """The score that a detection is to have to count as an object, by the validation images.

    Args:
        predictor: without a ``score_threshold``, so that all scores are there to choose from.
        dataset: whose classes are those of the detector by name; others are left out.
        iou: see :func:`best_threshold`.
        progress: is told how many images are done, of how many.

    Raises:
        PredictionError: no class of the dataset is one of the detector's.
        EvaluationError: there is nothing to choose by.
    """
    known = {name: index for index, name in enumerate(dataset.classes, start=1)}
    if not known.keys() & {*predictor.class_names}:
        raise PredictionError(
            f"{dataset.root} has the classes {', '.join(dataset.classes)}, and none of them is one "
            f"of the detector's: {', '.join(predictor.class_names)}; give images of its classes"
        )
    common = {known[name] for name in predictor.class_names if name in known}
    content = annotations_of(dataset, "val")
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] in common]
    with contextlib.redirect_stdout(io.StringIO()):  # remarks of pycocotools
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
    names = {image["file_name"]: image["image_id"] for image in dataset.val}
    results: list[dict[str, Any]] = []
    for done, prediction in enumerate(predictor.predict([*names]), start=1):
        results += [
            {**_kept(each), "category_id": known[each["category"]]}
            for each in prediction.to_coco(names[str(prediction.file_name)])
            if each["category"] in known
        ]
        if progress is not None:
            progress(done, len(names))
    return best_threshold(truth, results, iou)


def _kept(result: Mapping[str, Any]) -> dict[str, Any]:
    """A detection with what numbers say of it, without names."""
    return {key: result[key] for key in ("image_id", "category_id", "bbox", "score")}
