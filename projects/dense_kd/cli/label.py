"""``dense-kd label``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import DenseKDError
from ..pipeline.options import DistillOptions
from .predict import THRESHOLD
from .progress import image_counter

HELP = "write detections in images as COCO annotations with scores"
EXAMPLES = [
    "dense-kd label output/quickstart/teacher/model_final.pth datasets/shapes/val --threshold 0.5",
    "dense-kd label output/quickstart/teacher/model_final.pth photos --calibrate data",
    "dense-kd label output/quickstart/teacher/model_final.pth --calibrate data",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Weights, images, and which detections are objects."""
    option = parser.add_argument
    option("weights", metavar="WEIGHTS", help="a checkpoint, or the name of a published one")
    option("images", nargs="*", metavar="IMAGES", help="images, and folders with images")
    option("--output", default="labels.json", metavar="FILE", help="COCO JSON (%(default)s)")
    option(
        "--threshold",
        type=float,
        metavar="SCORE",
        help=f"detections that score less are no objects ({THRESHOLD}, without --calibrate)",
    )
    option(
        "--calibrate",
        metavar="DATA",
        help="choose the score by the validation images of a labelled dataset, as `dense-kd "
        "distill` takes it: that of the largest F1, as score_thresh of PseudoLabels",
    )
    for name, (metavar, kind, what) in _OF_DATA.items():
        flag, default = name.replace("_", "-"), getattr(DistillOptions, name)
        shown = "" if default is None else f" ({default})"
        option(f"--{flag}", metavar=metavar, type=kind, help=f"of --calibrate: {what}{shown}")
    option("--device", help="cpu, cuda, cuda:1, ...; by default the GPU if there is one")
    option("--overwrite", action="store_true", help="replace FILE, if it is there")
    option("--config", help="the config of the run, if WEIGHTS do not describe their detector")
    option("--batch-size", type=int, default=4, help="images at once (%(default)s)")


_OF_DATA: dict[str, tuple[str, type, str]] = {
    "layout": ("NAME", str, "coco, voc or yolo, where DATA could be several of them"),
    "val_fraction": ("X", float, "share of the images that distill drew to evaluate on"),
    "seed": ("N", int, "of distill, which the draw depends on"),
}
"""Options of ``dense-kd distill`` that say which images of DATA are the validation images."""


def run(args: argparse.Namespace) -> int:
    """Choose the score, label and say what was found; 1 if an image could not be read."""
    from ..data.folders import read_dataset
    from ..prediction import Predictor, calibrate, label_files
    from ..prediction.earlier import check_labels

    if args.calibrate and args.threshold is not None:
        raise DenseKDError("--threshold and --calibrate both say what is an object; give one")
    if not args.images and not args.calibrate:
        raise DenseKDError("there is nothing to label; give images, or folders with images")
    given = {name: getattr(args, name) for name in _OF_DATA if getattr(args, name) is not None}
    if given and not args.calibrate:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise DenseKDError(f"{flags}: of the data of --calibrate; give it, or leave this out")
    if args.images:
        check_labels(Path(args.output), args.overwrite)
    score = THRESHOLD if args.threshold is None else args.threshold
    if args.calibrate:
        every = Predictor(args.weights, args.config, device=args.device)
        data = read_dataset(args.calibrate, **given)
        chosen = calibrate(every, data, progress=image_counter())
        print(f"{chosen}, by {len(data.val)} images of {args.calibrate}")
        if not args.images:
            return 0
        score = chosen.score
    predictor = Predictor(args.weights, args.config, device=args.device, score_threshold=score)
    outcome = label_files(
        predictor,
        args.images,
        args.output,
        overwrite=args.overwrite,
        batch_size=args.batch_size,
        progress=image_counter(),
    )
    print(f"{outcome.num_objects} objects in {outcome.num_images} images: {args.output}")
    for error in outcome.unreadable.values():
        print(f"dense-kd: {error}", file=sys.stderr)
    return 1 if outcome.unreadable else 0
