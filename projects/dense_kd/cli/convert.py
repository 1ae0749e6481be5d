"""``dense-kd convert``."""

from __future__ import annotations

import argparse

HELP = "convert a checkpoint of mmdetection, torchvision or timm"
EXAMPLES = [
    "dense-kd convert mmdet://gfl_r50_fpn_1x_coco gfl_r50.pth --config gfl/r50_1x",
    "dense-kd convert output/quickstart/bckd/model_final.pth student.pth --part student",
]

_ABOUT = """\
Training and evaluation here read such files as they are; this is for looking into one, for
checking it against a config, for keeping a smaller one, and for taking the student or the teacher
out of a distiller's (of mmdetection, of mmrazor, or the student of ours).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two files, and what is known of the first."""
    parser.epilog = f"{_ABOUT}\n{parser.epilog}"
    parser.add_argument(
        "source", metavar="IN", help="checkpoint: a file, a URL, mmdet://NAME or torchvision://NAME"
    )
    parser.add_argument("target", metavar="OUT", help="file to write, .pth")
    parser.add_argument(
        "--part", choices=("student", "teacher"), help="model to take out of a distiller's file"
    )
    parser.add_argument(
        "--no-background",
        dest="background",
        action="store_false",
        help="keep class 0 of a detector that was trained in torchvision with labels from 0",
    )
    parser.add_argument(
        "--config",
        help="name or file of a config whose model the weights must fit exactly, or nothing is "
        "written; of a distiller it is the teacher, or with --part student the student",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT, if it is there")


def run(args: argparse.Namespace) -> None:
    """Convert, and print what became of the keys."""
    from ..engine import converting

    conversion = converting.convert_checkpoint(
        args.source,
        args.target,
        part=args.part,
        background=args.background,
        config=args.config,
        overwrite=args.overwrite,
    )
    print(converting.describe(conversion, args.target))
