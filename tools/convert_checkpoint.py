#!/usr/bin/env python
"""Convert a checkpoint of mmdetection, for detectron2 and everything else that reads its keys.

Training and evaluation here read mmdetection's files as they are; this is for looking into one,
for keeping a smaller one, and for taking the student or the teacher out of a distiller's.
"""

from __future__ import annotations

import argparse
import os
import sys

# Works in a checkout that is not installed, too.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "projects"))

from dense_kd.checkpoint import CheckpointError, convert_file


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", metavar="IN", help="checkpoint of mmdetection")
    parser.add_argument("target", metavar="OUT", help="file to write, .pth")
    parser.add_argument(
        "--part", choices=("student", "teacher"), help="model to take out of a distiller's file"
    )
    return parser


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
    try:
        conversion = convert_file(args.source, args.target, args.part)
    except CheckpointError as error:
        sys.exit(f"{parser.prog}: {error}")
    print(f"{args.target}: {conversion.detector or 'no head'}")
    print(conversion.table())


if __name__ == "__main__":
    main()
