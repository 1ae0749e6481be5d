"""``dense-kd report``."""

from __future__ import annotations

import argparse

from .arguments import titled

HELP = "write a page about trained runs, side by side"
EXAMPLES = [
    "dense-kd report output/quickstart/student output/quickstart/bckd",
    "dense-kd report alone=output/quickstart/student BCKD=output/quickstart/bckd --maps bckd",
    "dense-kd report runs/alone_1 runs/alone_2 runs/bckd_1 runs/bckd_2 --output seeds.html",
    "dense-kd report output/distill/photos --title 'student=without a teacher'",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The runs, how they are called and what is shown."""
    option = parser.add_argument
    option(
        "runs",
        nargs="+",
        metavar="[TITLE=]RUN",
        help="folder of `dense-kd train` or `dense-kd distill`; the others are compared with the "
        "first",
    )
    option("--output", default="report.html", metavar="FILE", help="the page (%(default)s)")
    option(
        "--title",
        action="append",
        default=[],
        metavar="NAME=TITLE",
        help="what a row is called instead; may be given several times",
    )
    option("--images", type=int, default=4, metavar="N", help="with detections (4); 0: none")
    option(
        "--maps",
        metavar="FIGURES",
        help="of the distillations by their last weights, on the first image: bckd, crosskd, "
        "gradients, pgd, tid, with commas between them; their configs are built and their teachers "
        "loaded. Those that runs have drawn while they trained (train.maps) are shown anyway",
    )
    option("--samples", type=int, default=1000, help="of the bootstrap over images (1000)")
    option("--annotations", metavar="FILE", help="COCO's file, if the dataset has another place")
    option("--image-root", metavar="FOLDER", help="of the images, if they have another place")
    parser.epilog = (
        "Runs that differ in nothing but the seed are one row, with mean and spread. The page is\n"
        f"one file that needs no other, and no network.\n\n{parser.epilog}"
    )


def run(args: argparse.Namespace) -> None:
    """Write the page, and say what it says first."""
    from ..reporting import ReportError, report_runs

    headline = report_runs(
        args.runs,
        args.output,
        titles=titled("--title", args.title, "NAME=TITLE", ReportError),
        images=args.images,
        figures=[name.strip() for name in args.maps.split(",")] if args.maps is not None else (),
        samples=args.samples,
        annotations=args.annotations,
        image_root=args.image_root,
    )
    print(headline)
    print(f"the page is {args.output}")
