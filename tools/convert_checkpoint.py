#!/usr/bin/env python
"""Convert a checkpoint of mmdetection, torchvision or timm to the keys of detectron2 and dense_kd.

Training and evaluation here read such files as they are; this is for looking into one, for
checking it against a config, for keeping a smaller one, and for taking the student or the teacher
out of a distiller's (of mmdetection, of mmrazor, or the student of ours).
"""

from __future__ import annotations

import argparse
import os
import sys

# Works in a checkout that is not installed, too.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "projects"))

from detectron2.config import LazyConfig, instantiate
from torch import nn

from dense_kd.checkpoint import CheckpointError, convert_file, published_file


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
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
        help="LazyConfig whose model the weights must fit exactly, or nothing is written; of a "
        "distiller it is the teacher, or with --part student the student",
    )
    return parser


def get_model(config: str, part: str | None) -> nn.Module:
    """The model of a config, or the ``part`` of the distiller in it."""
    model = LazyConfig.load(config).get("model")
    if model is None:
        raise CheckpointError(f"{config} has no 'model', expected a config of a detector")
    if "teacher" in model and "student" in model:
        model = model.student if part == "student" else model.teacher.model
    return instantiate(model)


def main() -> None:
    parser = get_parser()
    args = parser.parse_args()
    folder = os.path.dirname(os.path.abspath(args.target))
    if not os.path.isdir(folder):
        parser.error(f"the folder of OUT does not exist: {folder}")
    if os.path.isdir(args.target):
        parser.error(f"OUT is a folder, expected a file: {args.target}")
    if os.path.realpath(args.source) == os.path.realpath(args.target):
        parser.error(f"IN and OUT are the same file: {args.target}")
    if args.config and not os.path.isfile(args.config):
        parser.error(f"the config does not exist: {args.config}")
    try:
        conversion = convert_file(
            published_file(args.source),
            args.target,
            args.part,
            background=args.background,
            model=get_model(args.config, args.part) if args.config else None,
        )
    except CheckpointError as error:
        sys.exit(f"{parser.prog}: {error}")
    if conversion.project == "dense_kd":
        print(f"{args.target}: the keys are ours already, nothing was renamed")
    else:
        model = conversion.model or "no known head"
        print(f"{args.target}: {conversion.project}'s {model}")
    print(conversion.table())


if __name__ == "__main__":
    main()
