#!/usr/bin/env python
"""Generate the splits of the shapes dataset: shapes_train, shapes_tune and shapes_val."""

from __future__ import annotations

import argparse
import logging
import os
import sys

# Works in a checkout that is not installed, too.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "projects"))

from dense_kd.data.shapes import DEFAULT_SIZES, default_shapes_root, generate_shapes


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--root", default=default_shapes_root(), help="folder of the dataset")
    sizes = DEFAULT_SIZES
    parser.add_argument("--train", type=int, default=sizes["train"], help="training images")
    parser.add_argument("--tune", type=int, default=sizes["tune"], help="to choose settings on")
    parser.add_argument("--val", type=int, default=sizes["val"], help="validation images")
    parser.add_argument(
        "--size", type=int, nargs="+", default=[128], help="side in pixels, or height and width"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that draw; 0: this one")
    return parser


def main() -> None:
    parser = get_parser()
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    size = args.size * 2 if len(args.size) == 1 else args.size
    for split in ("train", "tune", "val"):
        num_images = getattr(args, split)
        try:
            json_file = generate_shapes(
                args.root,
                split,
                num_images,
                image_size=size,
                seed=args.seed,
                num_workers=args.workers,
            )
        except ValueError as error:
            parser.error(str(error))
        print(f"shapes_{split}: {num_images} images in {json_file}")


if __name__ == "__main__":
    main()
