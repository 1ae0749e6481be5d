"""Detections of the runs of a report on a few images, and the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode

from ..errors import DenseKDError
from ..evaluation.coco import read_annotations
from ..evaluation.errors import EvaluationError
from ..prediction import Predictor
from ..visualize.drawing import ComparedImage, choose_images, compare
from ..visualize.page import Note, Part, Pictures
from ..visualize.report import drawn_from
from .datasets import EvaluationData
from .evidence import other_data
from .groups import RunGroup

__all__ = ["images_of", "pictures"]

SCORE_THRESHOLD = 0.3
_LONGEST_EDGE = 480  # pixels


def pictures(groups: Sequence[RunGroup], count: int) -> list[Part]:
    """A row for each image, or why there is none.

    Args:
        groups: of the report; of each the first run that counts is shown.
        count: of images, 1 or more.
    """
    others = other_data(groups)
    data = groups[0].data
    notes: list[Part] = [
        Note(f"{group.title} is left out: it is of {group.data}, not of {data}.", "warning")
        for group in others
    ]
    try:
        dataset, classes = images_of(data)
    except EvaluationError as error:
        return [*notes, Note(f"There are no pictures: {error}.", "warning")]
    images = choose_images(dataset, count)
    lost = [image["file_name"] for image in images if not Path(image["file_name"]).is_file()]
    if lost or not images:
        why = f"the image {lost[0]} is not there" if lost else f"{data} has no images"
        return [*notes, Note(f"There are no pictures: {why}.", "warning")]
    rows: list[ComparedImage] = []
    seeds = []
    for group in groups:
        if group in others:
            continue
        run = group.counted[0]
        try:
            found = _compared(run.weights, group.title, images, classes)
        except DenseKDError as error:
            notes.append(Note(f"{group.title} is left out: {error}.", "warning"))
            continue
        if len(group.runs) > 1:
            seeds.append(f"of {group.title_of(run)}")
        rows = [
            ComparedImage(new.name, [*old.panels, *new.panels[1:]]) for old, new in zip(rows, found)
        ] or found
    if not rows:
        return [*notes, Note("There are no pictures: no run has weights that can be shown.")]
    text = drawn_from(SCORE_THRESHOLD) + (f" Shown are: {'; '.join(seeds)}." if seeds else "")
    return [*notes, Note(text), Pictures(rows)]


def _compared(
    weights: Path | None, title: str, images: Sequence[Mapping[str, Any]], classes: Sequence[str]
) -> list[ComparedImage]:
    if weights is None:
        raise EvaluationError("it has no weights")
    predictor = Predictor(weights, score_threshold=SCORE_THRESHOLD)
    unnamed = [f"class {index}" for index in range(len(classes))]
    if predictor.class_names not in (list(classes), unnamed):
        raise EvaluationError(
            f"its classes are {', '.join(predictor.class_names)}, those of the images "
            f"{', '.join(classes)}"
        )
    return compare(
        images,
        {title: predictor.model},
        classes,
        score_threshold=SCORE_THRESHOLD,
        augmentations=predictor.augmentations,
        longest_edge=_LONGEST_EDGE,
    )


def images_of(data: EvaluationData) -> tuple[list[dict[str, Any]], list[str]]:
    """(images in detectron2's standard format, names of the classes).

    Raises:
        EvaluationError: its annotations are not there or cannot be read, or nobody knows where the
            images are.
    """
    if data.annotations is None:
        raise EvaluationError(data.missing)
    if data.images is None:
        raise EvaluationError(
            f"the folder of the images of {data} is not known; give it with --image-root FOLDER"
        )
    truth = read_annotations(str(data.annotations))
    index_of = {category: index for index, category in enumerate(sorted(truth.cats))}
    images = [
        {
            "file_name": str(data.images / image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": key,
            "annotations": [
                {
                    "bbox": each["bbox"],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": index_of[each["category_id"]],
                    "iscrowd": each.get("iscrowd", 0),
                }
                for each in truth.imgToAnns[key]
            ],
        }
        for key, image in sorted(truth.imgs.items())
    ]
    return images, [truth.cats[category]["name"] for category in index_of]
