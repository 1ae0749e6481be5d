"""``dense-kd maps``."""

from __future__ import annotations

import argparse
import sys

from .arguments import add_config, is_override, take_names
from .progress import image_counter

HELP = "draw what teacher and student make of images, place by place"
EXAMPLES = [
    "dense-kd maps quickstart/distill --images datasets/shapes/val/000001.png",
    "dense-kd maps quickstart/distill --images datasets/shapes/val/000002.png --what tid --arrays",
    "dense-kd maps quickstart/distill --images photos --against output/quickstart/student",
]
FIGURES = "bckd,crosskd,gradients,pgd,tid"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A config, images, and which figures of them."""
    add_config(parser, metavar="CONFIG [WEIGHTS] path.key=value")
    option = parser.add_argument
    option("--images", nargs="+", required=True, help="images, and folders with images")
    option(
        "--what",
        default=FIGURES,
        metavar="FIGURES",
        help="BCKD's Figure 3, CrossKD's 2 and 5, PGD's 1 and 2, TID's 4 (%(default)s)",
    )
    option(
        "--against",
        metavar="CHECKPOINT",
        help="another student of the same detector, as one without a teacher; or its run (bckd)",
    )
    option("--category", metavar="CLASS", help="name or number, else all classes (crosskd)")
    option("--object", type=int, metavar="N", help="from 0, else the largest of an image (pgd)")
    option("--output", default="maps", metavar="FOLDER", help="where to (%(default)s)")
    option("--format", default="png", help="png, svg or pdf (%(default)s)")
    option("--arrays", action="store_true", help="write the maps as .npz, too")
    parser.epilog = (
        "Without WEIGHTS, or train.init_checkpoint=FILE, the student is the last checkpoint of\n"
        "the config's own run. Gradients, PGD and TID need objects: those of the\n"
        "config's test set.\n\n"
        f"{parser.epilog}"
    )


def run(args: argparse.Namespace) -> int:
    """Write figures and say where they are; 1 if an image could not be read."""
    from ..engine.mapping import write_maps

    args.weights = None
    # argparse gives an option with several values all that follows it.
    args.opts += [word for word in args.images if is_override(word)]
    args.images = [word for word in args.images if not is_override(word)]
    take_names(args, "config_file", "weights")
    written = write_maps(
        args.config_file,
        args.opts,
        args.images,
        weights=args.weights,
        what=[name.strip() for name in args.what.split(",")],
        against=args.against,
        category=args.category,
        index=args.object,
        output=args.output,
        suffix=f".{args.format}",
        arrays=args.arrays,
        progress=image_counter(),
    )
    count = len(written.files)
    print(f"{count} {'file' if count == 1 else 'files'}: {args.output}")
    for image, reasons in written.left_out.items():
        for name, why in reasons.items():
            print(f"{image}, {name}: {why}")
    for error in written.unreadable.values():
        print(f"dense-kd: {error}", file=sys.stderr)
    return 1 if written.unreadable else 0
