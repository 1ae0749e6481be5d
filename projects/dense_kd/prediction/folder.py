"""Images in files and folders, and what is written of the detections on them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..checkpoint import replace_atomically, write_text
from ..data.folders.tree import is_of_system
from ..evaluation.coco import read_annotations
from ..evaluation.names import Names
from .earlier import earlier_results, incomplete, keeping, mark
from .errors import ImageError, PredictionError
from .images import ImageInput
from .predictor import Predictor
from .results import Prediction

SUFFIXES = frozenset(
    ".bmp .gif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
"""Of the images that are looked for in folders; a file that is named may have any."""

RESULTS, UNREADABLE, DRAWN = "predictions.json", "unreadable.txt", "images"


@dataclass(frozen=True)
class Outcome:
    """What was detected in a number of files.

    Attributes:
        num_images: that were read.
        num_detections: in them.
        unreadable: {path of an image that could not be read: why}.
        results: the file with all detections.
        drawn: the folder with the pictures, None if none were drawn.
    """

    num_images: int
    num_detections: int
    unreadable: dict[str, str]
    results: Path
    drawn: Path | None


def find_images(
    paths: Iterable[str | os.PathLike[str]], *, leave_out: str | os.PathLike[str] | None = None
) -> dict[Path, Path]:
    """The images that files and folders stand for, each once.

    Args:
        paths: files, which may have any suffix, and folders, in which all images are found that
            have a usual one; hidden files and folders and those of systems (thumbnails, what was
            deleted) are left out, links to folders are followed, each folder once.
        leave_out: a folder that is not looked into, for what was written of an earlier time.

    Returns:
        {image: its place below what was given, for a file its name}, in order.

    Raises:
        PredictionError: there is no such path, or no image in all of them.
    """
    given = [Path(path) for path in paths]
    missing = [str(path) for path in given if not path.exists()]
    if missing:
        raise PredictionError(
            f"there is no {', '.join(missing)} (here is {os.getcwd()}); expected images, or "
            "folders with images"
        )
    skipped = None if leave_out is None else Path(leave_out).resolve()
    found: dict[Path, Path] = {}
    seen: set[Path] = set()

    def add(file: Path, place: Path) -> None:
        real = file.parent.resolve() / file.name  # however it is written
        if real not in seen:
            seen.add(real)
            found[file] = place

    for path in given:
        if path.is_dir():
            for file in _images_in(path, {skipped, path.resolve()}):
                add(file, file.relative_to(path))
        else:
            add(path, Path(path.name))
    if not found:
        folders = ", ".join(map(str, given)) or "nothing"
        raise PredictionError(
            f"no image was found in {folders}; expected files that end in one of "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    return found


def predict_files(
    predictor: Predictor,
    paths: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    annotations: str | os.PathLike[str] | None = None,
    draw: bool = True,
    overwrite: bool = False,
    batch_size: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Detect in files and folders, and write what is found.

    ``output/predictions.json`` is a list in COCO's format of results, see
    :meth:`.results.Prediction.to_coco`; images are numbered from 1, in order, or have the ids of
    ``annotations``. Pictures go to
    ``output/images``, below the folders that were given. Images that cannot be read are listed in
    ``output/unreadable.txt``; there is no such file if there are none. If it is interrupted, what
    was found until then is in ``output/predictions.incomplete.json``.

    Args:
        predictor: with which.
        paths: see :func:`find_images`.
        output: folder, made if it is not there.
        annotations: a COCO file of these images and of all classes of the detector, whose ids the
            results have then: programs that go by ids alone can evaluate them.
        draw: write pictures with boxes, too.
        overwrite: replace what an earlier call has written to ``output``, and remove its pictures.
        batch_size: see :meth:`.predictor.Predictor.predict`.
        progress: is told how many images are done, of how many.

    Raises:
        PredictionError: nothing was found to detect on, a picture would replace an image, or
            ``output`` has results or other pictures already.
        SaveError: ``output`` is a file, or cannot be written to.
        EvaluationError: ``annotations`` cannot be read, or lack an image or a class.
    """
    output = Path(output)
    images = find_images(paths, leave_out=output)
    drawn = free_places(images, output / DRAWN, ".jpg") if draw else {}
    earlier = earlier_results(
        [output / name for name in (RESULTS, incomplete(Path(RESULTS)), UNREADABLE)],
        output / DRAWN,
        draw=draw,
        overwrite=overwrite,
        needed=images,
    )
    names = None if annotations is None else _names_of(annotations, predictor)
    numbers = {
        str(path): number if names is None else names.image_id(str(path))
        for number, path in enumerate(images, start=1)
    }
    unreadable: dict[str, str] = {}
    results: list[Mapping[str, Any]] = []

    def note(image: ImageInput, error: ImageError) -> None:
        unreadable[str(image)] = str(error)

    done = 0

    def write(file: Path) -> str:
        write_text(file, json.dumps(results, ensure_ascii=False))
        if unreadable:
            lines = "".join(f"{error}\n" for error in unreadable.values())
            write_text(output / UNREADABLE, lines)
        return f"what was found in {done} of {len(numbers)} images"

    predictions = predictor.predict(numbers, batch_size=batch_size, on_error=note)
    output.mkdir(parents=True, exist_ok=True)
    for file in earlier:
        file.unlink()
    with keeping(output / RESULTS, lambda file: write(file) if done else ""):
        for prediction in predictions:
            name = str(prediction.file_name)
            found = prediction.to_coco(numbers[name])
            results += found if names is None else map(names.result, found)
            done += 1
            if draw:
                _save(prediction, drawn[Path(name)])
            if progress is not None:
                progress(done + len(unreadable), len(numbers))
    write(output / RESULTS)
    return Outcome(
        done, len(results), unreadable, output / RESULTS, output / DRAWN if draw else None
    )


def _names_of(annotations: str | os.PathLike[str], predictor: Predictor) -> Names:
    """Those of annotations that have all classes of a detector."""
    names = Names(read_annotations(os.fspath(annotations)).dataset)
    for name, key in zip(predictor.class_names, predictor.category_ids):
        names.category_id(name, key)
    return names


def _images_in(folder: Path, seen: set[Path | None]) -> Iterator[Path]:
    """The images below a folder, but for folders that were seen, which are added to."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise PredictionError(
            f"the folder {folder} cannot be read ({error.strerror}), so its images would be "
            "missing; make it readable, or name the folders to look into"
        ) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            real = entry.resolve()
            if real not in seen and not is_of_system(entry.name):
                seen.add(real)
                yield from _images_in(entry, seen)
        elif entry.suffix.lower() in SUFFIXES:
            yield entry


def free_places(images: Mapping[Path, Path], folder: Path, suffix: str = "") -> dict[Path, Path]:
    """{image: where what is made of it is written}; images of one name get numbers.

    Args:
        images: of :func:`find_images`.
        folder: where to.
        suffix: of the files; "" for folders.

    Raises:
        PredictionError: an image is there.
    """
    sources = {path.resolve() for path in images}
    places: dict[Path, Path] = {}
    taken: set[str] = set()
    for image, below in images.items():
        place, number = (folder / below).with_suffix(suffix), 1
        while str(place).casefold() in taken:
            number += 1
            place = (folder / below).with_name(f"{below.stem}_{number}{suffix}")
        if place.resolve() in sources:
            raise PredictionError(
                f"the picture {place} would replace the image of that name; give another output"
            )
        taken.add(str(place).casefold())
        places[image] = place
    return places


def _save(prediction: Prediction, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    picture, kind = prediction.draw(), Image.registered_extensions()[place.suffix.lower()]
    replace_atomically(
        str(place),
        lambda file: picture.save(file, format=kind, quality=92, exif=mark()),
        one_of_many=True,
    )
