"""``dense-kd predict``."""

from __future__ import annotations

import argparse
import sys

from .progress import image_counter

HELP = "detect objects in images with the weights of a run"
EXAMPLES = [
    "dense-kd predict output/quickstart/bckd/model_final.pth datasets/shapes/val",
    "dense-kd predict output/quickstart/bckd/model_final.pth datasets/shapes/val --overwrite",
    "dense-kd predict mmdet://gfl_r50_fpn_1x_coco photos --device cpu  # a published detector",
    "dense-kd predict mmdet://gfl_r50_fpn_1x_coco photos --threshold 0.5 --no-images --output b",
]

THRESHOLD = 0.3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Weights, images, and what to do with them."""
    option = parser.add_argument
    option("weights", metavar="WEIGHTS", help="a checkpoint, or the name of a published one")
    option("images", nargs="+", metavar="IMAGES", help="images, and folders with images")
    option(
        "--output",
        default="predictions",
        metavar="DIR",
        help="folder for predictions.json and the pictures (%(default)s)",
    )
    option(
        "--threshold",
        type=float,
        default=THRESHOLD,
        metavar="SCORE",
        help="detections that score less are left out (%(default)s); 0: the detector's own bound",
    )
    option(
        "--annotations",
        metavar="FILE",
        help="COCO's file of these images, whose ids predictions.json has then; by default images "
        "are numbered from 1",
    )
    option("--device", help="cpu, cuda, cuda:1, ...; by default the GPU if there is one")
    option("--no-images", action="store_true", help="write predictions.json alone, no pictures")
    option("--overwrite", action="store_true", help="replace what is in DIR of an earlier time")
    option("--config", help="the config of the run, if WEIGHTS do not describe their detector")
    option("--batch-size", type=int, default=4, help="images at once (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Detect, write and say what was found; 1 if an image could not be read."""
    from ..prediction import Predictor, predict_files
    from ..prediction.folder import UNREADABLE

    predictor = Predictor(
        args.weights,
        args.config,
        device=args.device,
        score_threshold=args.threshold or None,
    )
    outcome = predict_files(
        predictor,
        args.images,
        args.output,
        annotations=args.annotations,
        draw=not args.no_images,
        overwrite=args.overwrite,
        batch_size=args.batch_size,
        progress=image_counter(),
    )
    print(f"{outcome.num_detections} detections in {outcome.num_images} images: {outcome.results}")
    if outcome.drawn is not None:
        print(f"pictures: {outcome.drawn}")
    if not outcome.unreadable:
        return 0
    for error in outcome.unreadable.values():
        print(f"dense-kd: {error}", file=sys.stderr)
    count = len(outcome.unreadable)
    what = "image" if count == 1 else "images"
    listed = outcome.results.with_name(UNREADABLE)
    print(f"dense-kd: {count} {what} could not be read, see {listed}", file=sys.stderr)
    return 1
