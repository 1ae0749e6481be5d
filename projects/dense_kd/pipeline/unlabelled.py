"""Images without labels beside a dataset, in a distillation from a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..checkpoint.digests import weights_digest
from ..data import DatasetError, unlabelled_images
from ..data.folders import OwnDataset
from ..data.folders.duplicates import copies
from ..data.folders.images import read_header
from ..evaluation.errors import EvaluationError
from ..json_files import read_json, write_json
from ..prediction import Predictor, calibrate
from .derive import Devices, Number
from .errors import PipelineError

__all__ = [
    "Unlabelled",
    "choose_score",
    "find_unlabelled",
    "forget_score",
    "known_score",
    "write_images",
]

SCORE = "score_thresh.json"
IMAGES = "unlabelled.json"


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """Images without labels, and how they are learnt from.

    Attributes:
        folder: as given, absolute.
        images: dataset dicts.
        left_out: images that are copies of labelled ones.
        batch: of an iteration, beside the labelled ones.
        reads_objects: whether a method needs the teacher's detections for objects.
        score: from which they are; None: to be chosen by the validation images.
    """

    folder: Path
    images: list[dict[str, Any]]
    left_out: int
    batch: Number
    reads_objects: bool
    score: float | None

    def lines(self) -> Iterator[str]:
        """Of the plan."""
        left_out = f"; {self.left_out} left out, copies of DATA's" if self.left_out else ""
        yield f"unlabelled: {len(self.images)} images of {self.folder}{left_out}"
        yield f"  batch size: {self.batch.value:g} ({self.batch.reason})"
        if self.reads_objects:
            chosen = "that of the largest F1 on the validation images, once the teacher is there"
            score = chosen if self.score is None else f"{self.score:g} (as given)"
            yield f"  objects: the teacher's detections; their score: {score}"


def find_unlabelled(
    folder: str,
    data: OwnDataset,
    *,
    ratio: float,
    batch: int,
    devices: Devices,
    reads_objects: bool,
    score: float | None,
) -> Unlabelled:
    """The images, without those that are in the data already: nobody is to learn from what is
    evaluated on.

    Args:
        folder: with images.
        data: whose images are labelled.
        ratio: unlabelled images for each labelled one of a batch.
        batch: labelled images of an iteration.
        devices: whose processes share a batch.
        reads_objects, score: see :class:`Unlabelled`.

    Raises:
        PipelineError: there are none, or too few for a batch of each process.
    """
    try:
        found = unlabelled_images(folder)
    except DatasetError as error:
        raise PipelineError(f"unlabelled={folder}: {error}") from error
    labelled = {Path(x["file_name"]) for x in (*data.train, *data.val, *(data.test or ()))}
    paths = {Path(image["file_name"]): image for image in found}
    same = copies({path: read_header(path) for path in {*paths, *labelled}})
    known = labelled | {same[path] for path in labelled if path in same}
    kept = [
        image
        for path, image in paths.items()
        if path not in labelled and same.get(path) not in known
    ]
    if not kept:
        raise PipelineError(
            f"unlabelled={folder}: all of its {len(found)} images are in the data already; give "
            "a folder with others, or leave the option out"
        )
    number = max(round(ratio * batch / devices.count), 1) * devices.count
    return Unlabelled(
        folder=Path(folder).expanduser().absolute(),
        images=kept,
        left_out=len(found) - len(kept),
        batch=Number(number, f"{ratio:g} for each labelled image"),
        reads_objects=reads_objects,
        score=score,
    )


def write_images(unlabelled: Unlabelled, folder: Path, classes: list[str]) -> Path:
    """Write their list as a COCO file without annotations.

    Args:
        unlabelled: the images.
        folder: that is there.
        classes: of the data.
    """
    images = [
        {**image, "file_name": Path(image["file_name"]).relative_to(unlabelled.folder).as_posix()}
        for image in unlabelled.images
    ]
    for image in images:
        image["id"] = image.pop("image_id")
    content = {
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, start=1)],
        "images": images,
        "annotations": [],
    }
    write_json(folder / IMAGES, content)
    return folder / IMAGES


def choose_score(weights: str, config: Path, data: OwnDataset, device: str, output: Path) -> Number:
    """The score from which the teacher's detections are objects, by the validation images.

    It is kept in ``score_thresh.json``, and not chosen again for the same weights.

    Args:
        weights: of the teacher.
        config: of its training.
        data: with validation images.
        device: to detect on.
        output: folder of the file.

    Raises:
        PipelineError: the teacher detects nothing there.
    """
    known = known_score(weights, output)
    if known is not None:
        return known
    try:
        chosen = calibrate(Predictor(weights, str(config), device=device), data)
    except EvaluationError as error:
        raise PipelineError(
            f"unlabelled images: {error}. Give a score (score_thresh=0.5, --score-thresh 0.5), or "
            "train the teacher longer"
        ) from error
    reason = f"{chosen}, on the {len(data.val)} validation images".partition(": ")[2]
    content = {"score_thresh": chosen.score, "reason": reason, "weights": weights_digest(weights)}
    write_json(output / SCORE, content)
    return Number(chosen.score, reason)


def known_score(weights: str, output: Path) -> Number | None:
    """What :func:`choose_score` has chosen before for these weights, if it has."""
    known = read_json(output / SCORE)
    if known.get("weights") != weights_digest(weights):
        return None
    return Number(known["score_thresh"], known["reason"])


def forget_score(output: Path) -> None:
    """Have it chosen again: labels may be others, where the weights are the same."""
    (output / SCORE).unlink(missing_ok=True)
